"""Writing a plan: its folder checked before the work begins, and made whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.plan.plan_folder import check_replaceable, save_plan


def check_folder(folder: Path) -> None:
    """Refuse a folder that a plan cannot be written to.

    Raises
    ------
    ParframeError
        Of kind ``output``.
    """
    try:
        there = folder.exists()
    except OSError as error:
        raise ParframeError(
            "output", str(folder)[:100], f"no folder ({error.strerror})", "choose another folder"
        ) from error
    if there:
        check_replaceable(folder)
        return
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ParframeError(
            "output", str(folder), f"{above} is not a folder to write to", "choose another folder"
        )


def write_plan(plan: Plan, folder: Path, report: str) -> None:
    """Write a plan and the JSON of its report, making the folders above.

    Raises
    ------
    ParframeError
        Of kind ``output``, if they cannot be written; nothing is left behind then.
    """
    with _parents(folder):
        save_plan(plan, folder, report)


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make the folders above a path; those that were made go again if something fails."""
    missing = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ParframeError(
            "output", str(folder), f"cannot be made ({error.strerror})", "choose another folder"
        ) from error
    finally:
        if not folder.exists():
            for parent in missing:
                _remove_empty(parent)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it begins.

    Raises
    ------
    ParframeError
        Of kind ``output``.
    """
    above = path.absolute().parent
    if path.is_dir():
        what = "is a folder"
    elif not above.is_dir():
        what = f"there is no folder {above}"
    elif not os.access(path if path.exists() else above, os.W_OK):
        what = "cannot be written"
    else:
        return
    raise ParframeError("output", str(path)[:100], what, "choose another")
