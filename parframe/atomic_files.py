"""Files and folders that are written whole or not at all: under another name, then renamed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parframe.errors import ParframeError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file; if that fails, an existing file is left as it was.

    Raises
    ------
    ParframeError
        Of kind ``output``, if the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(target)
    except OSError as error:
        raise ParframeError(
            "output",
            str(target)[:100],
            f"cannot be written ({error.strerror})",
            "choose another path",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, check: Callable[[Path], None], wait: bool) -> Iterator[Path]:
    """Make a temporary folder next to a target, to be filled and then moved to the target.

    A lock keeps other runs from writing to the same target meanwhile.

    Parameters
    ----------
    target
        Where the folder will be.
    check
        Raises an error if the target may not be written to; called under the lock.
    wait
        Whether to wait for another run that writes there. If not, that is an error.

    Yields
    ------
    Path
        The temporary folder. It is removed at the end unless it was moved.

    Raises
    ------
    ParframeError
        Of kind ``output``, if another run writes there, or nothing can be written.
    """
    temporary = target.with_name(f".{target.name}.new")
    lock = target.with_name(f".{target.name}.lock")
    try:
        with _locked(lock, wait):
            try:
                check(target)
                shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
                temporary.mkdir()
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise ParframeError(
            "output", str(target), "is being written by another run", "wait for it to end"
        ) from error
    except OSError as error:
        raise cannot_write(target, str(error.strerror)) from error


def replace_folder(target: Path, new: Path) -> None:
    """Move a new folder to a target; if that fails, the old folder is put back."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # left by a run that was killed
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def cannot_write(path: str | os.PathLike[str], reason: str) -> ParframeError:
    """Return the error for a path that the system does not let be written."""
    return ParframeError(
        "output", str(path), f"cannot be written ({reason})", "choose another folder, or free space"
    )


@contextmanager
def _locked(lock: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a file that is still the one of its name."""
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file.fileno(), lock):
                yield
                return
        if not wait:  # another run ended between these lines
            raise BlockingIOError


def _is_at(file: int, path: Path) -> bool:
    """Tell whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
