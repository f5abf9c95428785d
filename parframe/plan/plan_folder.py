"""Folder of a plan: ``plan.json``, a Python file for every program, perhaps a report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from parframe.atomic_files import new_folder, replace_folder
from parframe.errors import ParframeError
from parframe.plan.plan_json import dump_plan
from parframe.plan.program_text import format_program
from parframe.plan.validation import validate_plan

if TYPE_CHECKING:
    from parframe.plan.plan import Plan

FILE = "plan.json"
PROGRAMS = "programs"
REPORT = "report.json"


def save_plan(plan: Plan, folder: str | os.PathLike[str], report: str | None = None) -> None:
    """Write a plan into a folder, perhaps with the JSON of a report; see `Plan.save`."""
    target = Path(os.path.realpath(folder))
    check_replaceable(target)
    validate_plan(plan)
    texts = {f"{PROGRAMS}/{name}.py": format_program(plan, name) for name in plan.programs}
    texts[FILE] = dump_plan(plan)
    if report is not None:
        texts[REPORT] = report
    with new_folder(target, check_replaceable, wait=True) as new:
        _write(new, texts)
        replace_folder(target, new)


def check_replaceable(target: Path) -> None:
    """Check that a plan may be written to a path.

    Raises
    ------
    ParframeError
        Of kind ``output``, if it is a folder with anything but a plan in it, or its parent is
        missing.
    """
    if not target.exists():
        if not target.parent.is_dir():
            raise ParframeError(
                "output", str(target), "its parent is not a folder", "make the folder first"
            )
        return
    if not target.is_dir():
        raise ParframeError("output", str(target), "is not a folder", "choose another path")
    foreign = _find_foreign(target)
    if foreign:
        raise ParframeError(
            "output",
            str(target),
            f"contains {foreign!r}, which is not part of a plan",
            "choose another folder, or empty this one",
        )


def _find_foreign(folder: Path) -> str | None:
    """Return the name of an entry that `save_plan` does not write, or None."""
    entries = {entry.name: entry for entry in os.scandir(folder)}
    if entries and FILE not in entries:
        return min(entries)
    for name, entry in sorted(entries.items()):
        if name in (FILE, REPORT) and entry.is_file(follow_symlinks=False):
            continue
        if name != PROGRAMS or not entry.is_dir(follow_symlinks=False):
            return name
        for program in os.scandir(entry):
            if not program.name.endswith(".py") or not program.is_file(follow_symlinks=False):
                return f"{PROGRAMS}/{program.name}"
    return None


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    (folder / PROGRAMS).mkdir()
    for name, text in texts.items():
        with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
