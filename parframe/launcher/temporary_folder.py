"""Folder of the temporary files of a run's processes, and of the compilers that they start.

A killed compiler leaves files behind, so each run has a folder of its own that is removed with it:
by the fork server when it exits, and by the launcher in case the fork server was killed.
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
_PREFIX = "parframe-run-"
_COMPILE_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def environment_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give a run a temporary folder of its own, not yet created."""
    usual = Path(environment.get(_VARIABLE) or tempfile.gettempdir())
    kept = environment.get(_COMPILE_CACHE) or str(usual / f"torchinductor_{getpass.getuser()}")
    return {_VARIABLE: str(usual / f"{_PREFIX}{secrets.token_hex(6)}"), _COMPILE_CACHE: kept}


def create() -> None:
    """Create the temporary folder of this process's run."""
    if folder := find(os.environ):
        folder.mkdir(mode=0o700)


def find(environment: Mapping[str, str]) -> Path | None:
    """Return the temporary folder of a run that an environment names, if any."""
    folder = Path(environment.get(_VARIABLE, ""))
    return folder if folder.name.startswith(_PREFIX) else None


def remove(folder: Path | None) -> None:
    """Remove the temporary folder of a run with its contents, if it exists."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
