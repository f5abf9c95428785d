"""Lookup of the hardware that a user names: shipped entries, files and plugins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from parframe import hooks
from parframe.hardware import Catalog, Cluster, catalog
from parframe.hardware import cluster as parse_cluster


def load_catalog(name: str = "", files: Iterable[Path] = ()) -> Catalog:
    """Return the catalog in which a hardware name is looked up.

    Plugins that claim the name are loaded; ``files`` are the user's own, and take precedence.

    Raises
    ------
    ParframeError
        Of kind `hardware` or `plugin`, if a file or a plugin has an invalid entry.
    """
    return catalog((*hooks.hardware(name), *files))


def find_cluster(text: str, files: Iterable[Path] = ()) -> Cluster:
    """Return the cluster that a text names, as `64xH100`, or that of a file with `[cluster]`.

    Raises
    ------
    ParframeError
        Of kind `hardware` or `plugin`, if the text does not name known hardware.
    """
    return parse_cluster(text, (*hooks.hardware(text), *files))
