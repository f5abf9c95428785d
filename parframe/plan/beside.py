"""A folder written beside its place by one run at a time: it is made whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from parframe.errors import ParframeError


@contextmanager
def beside(target: Path, check: Callable[[Path], None], wait: bool) -> Iterator[Path]:
    """A new folder beside the target, as long as nobody else writes there; to be renamed within.

    Parameters
    ----------
    target
        Where the folder will be.
    check
        Refuses a target that may not be written to; called when nobody else writes there.
    wait
        Whether to wait for another run that writes there, which is for what takes moments.

    Yields
    ------
    Path
        The new folder. It is gone at the end if it was not renamed.

    Raises
    ------
    ParframeError
        Of kind ``output``, if another run writes there, or nothing can be written.
    """
    found = target.with_name(f".{target.name}.new")
    lock = target.with_name(f".{target.name}.lock")
    try:
        with _held(lock, wait):
            try:
                check(target)
                shutil.rmtree(found, ignore_errors=True)  # of one that was killed
                found.mkdir()
                yield found
            finally:
                shutil.rmtree(found, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise ParframeError(
            "output", str(target), "is being written by another run", "wait for it to end"
        ) from error
    except OSError as error:
        raise unwritable(target, str(error.strerror)) from error


def unwritable(path: str | os.PathLike[str], why: str) -> ParframeError:
    """The error for what the system does not let be written."""
    return ParframeError(
        "output", str(path), f"cannot be written ({why})", "choose another folder, or make room"
    )


@contextmanager
def _held(lock: Path, wait: bool) -> Iterator[TextIO]:
    """A file that is locked, and still the one of its name."""
    while True:
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(held.fileno(), lock):
                yield held
                return
        if not wait:  # another run ended between these lines
            raise BlockingIOError


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
