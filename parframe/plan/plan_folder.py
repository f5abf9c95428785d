"""A plan's folder: written beside and then renamed, and read as a stranger's."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from parframe.atomic_files import new_folder, replace_folder
from parframe.errors import ParframeError
from parframe.json_input import read_text
from parframe.plan.plan import Plan
from parframe.plan.plan_json import dump, parse
from parframe.plan.program_text import role_text
from parframe.plan.validation import verify_plan

FILE = "plan.json"
ROLES = "roles"
REPORT = "report.json"
LARGEST = 1 << 29
"""The largest ``plan.json`` in bytes that is read."""


def save_plan(plan: Plan, folder: str | os.PathLike[str], report: str | None = None) -> None:
    """Write a plan into a folder, with the JSON of a report on it; see `Plan.save`."""
    target = Path(os.path.realpath(folder))
    check_replaceable(target)
    verify_plan(plan)
    texts = {f"{ROLES}/{name}.py": role_text(plan, name) for name in plan.programs}
    texts[FILE] = dump(plan)
    if report is not None:
        texts[REPORT] = report
    with new_folder(target, check_replaceable, wait=True) as made:
        _write(made, texts)
        replace_folder(target, made)


def load_plan(folder: str | os.PathLike[str]) -> Plan:
    """Read a plan that was saved.

    Parameters
    ----------
    folder
        The folder, or the ``plan.json`` in it.

    Returns
    -------
    Plan
        The plan. Its readable files are not read, and nothing of it is executed.

    Raises
    ------
    ParframeError
        Of kind ``plan``, if there is none, it was changed since it was written, it was written
        by a newer version, or it is not legal.
    """
    path = Path(folder)
    file = path if path.name == FILE and not path.is_dir() else path / FILE
    try:
        found = file.lstat()
    except OSError as error:
        raise ParframeError(
            "plan", str(file), f"cannot be read ({error.strerror})", "give a plan's folder"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise ParframeError("plan", str(file), "is not a plain file", "give a plan's folder")
    return parse(read_text(file, "plan", LARGEST))


def check_replaceable(target: Path) -> None:
    """Refuse a path that a plan may not be written to.

    Raises
    ------
    ParframeError
        Of kind ``output``, if it holds anything but a plan, or the folder it lies in is missing.
    """
    if not target.exists():
        if not target.parent.is_dir():
            raise ParframeError(
                "output", str(target), "its parent is not a folder", "make the folder first"
            )
        return
    if not target.is_dir():
        raise ParframeError("output", str(target), "is not a folder", "choose another path")
    foreign = _foreign(target)
    if foreign:
        raise ParframeError(
            "output",
            str(target),
            f"holds {foreign!r}, which is no part of a plan",
            "choose another folder, or empty this one",
        )


def _foreign(folder: Path) -> str | None:
    """Something in a folder that `save_plan` did not write, if there is anything."""
    entries = {entry.name: entry for entry in os.scandir(folder)}
    if entries and FILE not in entries:
        return min(entries)
    for name, entry in sorted(entries.items()):
        if name in (FILE, REPORT) and entry.is_file(follow_symlinks=False):
            continue
        if name != ROLES or not entry.is_dir(follow_symlinks=False):
            return name
        for role in os.scandir(entry):
            if not role.name.endswith(".py") or not role.is_file(follow_symlinks=False):
                return f"{ROLES}/{role.name}"
    return None


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    (folder / ROLES).mkdir()
    for name, text in texts.items():
        with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
