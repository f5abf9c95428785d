"""A plan as the text of ``plan.json`` and back, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from parframe import serial
from parframe.errors import ParframeError
from parframe.json_input import parse_json
from parframe.plan.json_rows import (
    decode_device,
    decode_note,
    decode_placing,
    decode_program,
    encode_device,
    encode_note,
    encode_placing,
    encode_program,
    mapping,
    sequence,
)
from parframe.plan.plan import Plan
from parframe.plan.validation import illegal, verify_plan

SCHEMA = 2
"""The version of ``plan.json`` that this version writes and reads."""

_DEEPEST_LINES = 3


def dump(plan: Plan) -> str:
    """The plan as JSON text: the same plan gives the same text."""
    content = _content(plan)
    whole = {"schema": SCHEMA, "digest": _digest(content), **content}
    return "".join(_lines(whole, 0)) + "\n"


def plan_digest(plan: Plan) -> str:
    """A digest of all that a plan says, whatever the place that its model was loaded from.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    str
        The same for equal plans, on every machine: ``sha256:`` and 64 hexadecimal digits.
    """
    graph = attrs.evolve(plan.graph, source="")
    return _digest(_content(attrs.evolve(plan, graph=graph)))


def _content(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "graph": json.loads(serial.dump(plan.graph)),
        "placing": encode_placing(plan.placing),
        "programs": {name: encode_program(p) for name, p in plan.programs.items()},
        "devices": [encode_device(device) for device in plan.devices],
        "notes": [encode_note(note) for note in plan.notes],
    }


def parse(text: str) -> Plan:
    """Read the text of a ``plan.json``.

    Parameters
    ----------
    text
        What `dump` wrote, perhaps changed by a stranger.

    Raises
    ------
    ParframeError
        Of kind ``plan``, if it is not a legal plan of this schema, or not as it was written.
    """
    content = mapping(parse_json(text, "plan"), "plan.json")
    _check_schema(content.get("schema"))
    if content.pop("digest", None) != _digest(content):
        raise illegal("plan.json", "was changed or cut after it was written")
    try:
        return _decode(content)
    except ParframeError as error:
        raise ParframeError("plan", f"plan.json, {error.where}", error.what, error.hint) from error


def _decode(content: Mapping[str, Any]) -> Plan:
    programs = mapping(content.get("programs"), "programs")
    devices = sequence(content.get("devices"), "devices")
    return verify_plan(
        Plan(
            graph=serial.parse(json.dumps(content.get("graph"))),
            placing=decode_placing(content.get("placing")),
            programs={name: decode_program(name, value) for name, value in programs.items()},
            devices=tuple(decode_device(rank, value) for rank, value in enumerate(devices)),
            notes=tuple(map(decode_note, sequence(content.get("notes"), "notes"))),
        )
    )


def _check_schema(version: Any) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise illegal("plan.json", "is not a plan")
    if version != SCHEMA:
        raise ParframeError(
            "plan",
            "plan.json, schema",
            f"the plan has schema {version}, this version reads {SCHEMA}",
            "partition the model again" if version < SCHEMA else "update parframe",
        )


def _digest(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(plain.encode()).hexdigest()


def _lines(value: Any, depth: int) -> Iterator[str]:
    """JSON text with a line for every operator, tensor and device: no list is within a list."""
    if depth > _DEEPEST_LINES or not value or not isinstance(value, dict | list):
        yield json.dumps(value, separators=(",", ":"), allow_nan=False)
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield opening
    entries = value.items() if isinstance(value, dict) else ((None, part) for part in value)
    for number, (key, part) in enumerate(entries):
        yield ("," if number else "") + "\n" + " " * (depth + 1)
        if key is not None:
            yield json.dumps(key) + ": "
        yield from _lines(part, depth + 1 if key is not None else _DEEPEST_LINES + 1)
    yield "\n" + " " * depth + closing
