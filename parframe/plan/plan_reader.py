"""Reading of plans: nothing in the file is trusted or executed.

A plan may name distributions whose rules its operators need; they must be installed, and are
imported.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parframe import graph_json, hooks
from parframe.errors import ParframeError
from parframe.json_input import parse_json, read_text
from parframe.plan.json_rows import (
    decode_device,
    decode_note,
    decode_placing,
    decode_program,
    mapping,
    sequence,
)
from parframe.plan.plan import Plan
from parframe.plan.plan_folder import FILE
from parframe.plan.plan_json import SCHEMA, content_digest
from parframe.plan.validation import invalid_plan, validate_plan

LARGEST = 1 << 29
"""The largest ``plan.json`` that is read, in bytes."""


def load_plan(folder: str | os.PathLike[str]) -> Plan:
    """Read a plan that was saved.

    Parameters
    ----------
    folder
        The folder, or the ``plan.json`` in it.

    Returns
    -------
    Plan
        The plan. Only ``plan.json`` is read, and nothing is executed.

    Raises
    ------
    ParframeError
        Of kind ``plan``, if there is no plan, it was changed after it was written, it has another
        schema, or it is not legal.
    """
    path = Path(folder)
    file = path if path.name == FILE and not path.is_dir() else path / FILE
    try:
        status = file.lstat()
    except OSError as error:
        raise ParframeError(
            "plan", str(file), f"cannot be read ({error.strerror})", "give a plan's folder"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ParframeError("plan", str(file), "is not a plain file", "give a plan's folder")
    return parse_plan(read_text(file, "plan", LARGEST))


def parse_plan(text: str) -> Plan:
    """Parse the text of a ``plan.json``.

    Parameters
    ----------
    text
        Text that `dump_plan` wrote.

    Raises
    ------
    ParframeError
        Of kind ``plan``, if it is not a legal plan of this schema, or was changed after it was
        written.
    """
    content = mapping(parse_json(text, "plan"), "plan.json")
    _check_schema(content.get("schema"))
    if content.pop("digest", None) != content_digest(content):
        raise invalid_plan("plan.json", "was changed or cut after it was written")
    try:
        return _decode(content)
    except ParframeError as error:
        raise ParframeError("plan", f"plan.json, {error.where}", error.what, error.hint) from error


def _decode(content: Mapping[str, Any]) -> Plan:
    plugins = sequence(content.get("plugins", []), "plugins")
    if not all(isinstance(name, str) for name in plugins):
        raise invalid_plan("plugins", "are not names of distributions")
    hooks.rules((), tuple(plugins))  # programs are read by what their operators are
    programs = mapping(content.get("programs"), "programs")
    devices = sequence(content.get("devices"), "devices")
    return validate_plan(
        Plan(
            graph=graph_json.parse_graph(json.dumps(content.get("graph"))),
            placing=decode_placing(content.get("placing")),
            programs={name: decode_program(name, value) for name, value in programs.items()},
            devices=tuple(decode_device(rank, value) for rank, value in enumerate(devices)),
            notes=tuple(map(decode_note, sequence(content.get("notes"), "notes"))),
            plugins=tuple(plugins),
        )
    )


def _check_schema(version: Any) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise invalid_plan("plan.json", "is not a plan")
    if version != SCHEMA:
        raise ParframeError(
            "plan",
            "plan.json, schema",
            f"the plan has schema {version}, this version reads {SCHEMA}",
            "partition the model again" if version < SCHEMA else "update parframe",
        )
