"""A folder for the temporary files of one run's processes, and of the compilers that they start.

A compiler that is killed leaves its own. So they get a folder that is removed with the run: by the
starting process when it ends, and by the launcher in case that one was killed.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = "TMPDIR"
_MARK = "parframe-run-"
_COMPILED = "TORCHINDUCTOR_CACHE_DIR"


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that let a run's processes use a folder of their own, which is not yet made.

    Parameters
    ----------
    environment
        The environment that they would have otherwise. What is compiled is kept where it was.
    """
    usual = Path(environment.get(_VARIABLE) or tempfile.gettempdir())
    kept = environment.get(_COMPILED) or str(usual / f"torchinductor_{getpass.getuser()}")
    return {_VARIABLE: str(usual / f"{_MARK}{secrets.token_hex(6)}"), _COMPILED: kept}


def make() -> None:
    """Make the folder of this process's run."""
    if folder := of(os.environ):
        folder.mkdir(mode=0o700)


def of(environment: Mapping[str, str]) -> Path | None:
    """The folder that an environment names, if it is one of a run."""
    folder = Path(environment.get(_VARIABLE, ""))
    return folder if folder.name.startswith(_MARK) else None


def remove(folder: Path | None) -> None:
    """Remove a run's folder, with all that is in it, if it is there."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
