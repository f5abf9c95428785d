"""A plan as the text of ``plan.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from parframe import graph_json
from parframe.plan.json_rows import encode_device, encode_note, encode_placing, encode_program

if TYPE_CHECKING:
    from parframe.plan.plan import Plan

SCHEMA = 2
"""Version of ``plan.json`` that this version writes and reads."""

_DEEPEST_LINES = 3


def dump_plan(plan: Plan) -> str:
    """Return a plan as JSON text; equal plans give equal texts."""
    content = _content(plan)
    whole = {"schema": SCHEMA, "digest": content_digest(content), **content}
    return "".join(_lines(whole, 0)) + "\n"


def plan_digest(plan: Plan) -> str:
    """Return a digest of a plan that does not depend on the path of the model.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits; the same for equal plans, on every machine.
    """
    graph = attrs.evolve(plan.graph, source="")
    return content_digest(_content(attrs.evolve(plan, graph=graph)))


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the digest of the JSON object of a plan, its key ``digest`` left out."""
    plain = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(plain.encode()).hexdigest()


def _content(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "graph": json.loads(graph_json.dump_graph(plan.graph)),
        "placing": encode_placing(plan.placing),
        "programs": {name: encode_program(p) for name, p in plan.programs.items()},
        "devices": [encode_device(device) for device in plan.devices],
        "notes": [encode_note(note) for note in plan.notes],
        **({"plugins": list(plan.plugins)} if plan.plugins else {}),
    }


def _lines(value: Any, depth: int) -> Iterator[str]:
    """Yield JSON text with one line for every operator, tensor and device."""
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
