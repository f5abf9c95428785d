"""The hardware that a user names: what ships, what files say, and what plugins bring."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from parframe import hooks
from parframe.hardware import Catalog, Cluster, catalog
from parframe.hardware import cluster as read_cluster


def known(name: str = "", files: Iterable[Path] = ()) -> Catalog:
    """Give the catalog in which a name is looked up.

    Parameters
    ----------
    name
        What the user names; plugins that claim a name in it are asked.
    files
        The user's own files, which come before all else.

    Raises
    ------
    ParframeError
        Of kind `hardware` or `plugin`, if a file or a plugin says something illegal.
    """
    return catalog((*hooks.hardware(name), *files))


def cluster(text: str, files: Iterable[Path] = ()) -> Cluster:
    """Read how many of which device or machine, as `64xH100`, or a file that has `[cluster]`.

    Parameters
    ----------
    text
        What the user wrote.
    files
        The user's own files of hardware.

    Raises
    ------
    ParframeError
        Of kind `hardware` or `plugin`, if it names nothing that is known.
    """
    return read_cluster(text, (*hooks.hardware(text), *files))
