"""Parts of a plan as rows of JSON, and back; rows are checked when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from parframe.graph import Operator, State
from parframe.graph_json import (
    decode_arg,
    decode_size,
    decode_tensor,
    encode_arg,
    encode_size,
    encode_tensor,
)
from parframe.layout import Join, Region, Span
from parframe.mesh import Mesh, StagedMesh
from parframe.plan.program import Device, Layout, Note, Part, Program
from parframe.plan.validation import invalid_plan
from parframe.strategy import Placing, Split

T = TypeVar("T")


def encode_placing(placing: Placing) -> dict[str, Any]:
    """Return a placing as JSON."""
    return {
        **_encode_mesh(placing.mesh),
        "splits": [
            [split.name, list(split.axes), split.required, split.no_idle]
            for split in placing.splits
        ],
        "stage_starts": list(placing.stage_starts),
        "distributed_forms": {
            axis: list(names) for axis, names in placing.distributed_forms.items()
        },
        "zigzag": list(placing.zigzag),
    }


def decode_placing(value: Any) -> Placing:
    """Read a placing from JSON."""
    match value:
        case {
            "mesh": list(axes), "splits": list(splits), "stage_starts": list(starts),
            "distributed_forms": dict(forms), "zigzag": list(zigzag),
        }:  # fmt: skip
            mesh = _mesh(axes, value.get("shares", {}), value.get("stages", []))
            names = {axis: _names(given, axis) for axis, given in forms.items()}
            if all(isinstance(start, str | int) for start in starts):
                return Placing(
                    mesh, tuple(map(_split, splits)), tuple(starts), names, _names(zigzag, "zigzag")
                )
    raise invalid_plan(
        "placing", "is not a mesh, splits, stage_starts, distributed_forms and zigzag"
    )


def _names(value: Any, where: str) -> tuple[str, ...]:
    where = f"placing, {where[:60]!r}"
    return tuple(text(name, where) for name in sequence(value, where))


def encode_program(program: Program) -> dict[str, Any]:
    """Return a program as JSON."""
    return {
        "stage": program.stage,
        "inputs": [_encode_part(part) for part in program.inputs],
        "parameters": [_encode_part(part) for part in program.parameters],
        "outputs": [_encode_part(part) for part in program.outputs],
        "states": {state.name: state.value for state in program.states},
        "tensors": {name: encode_tensor(tensor) for name, tensor in program.tensors.items()},
        "operators": [_encode_operator(operator) for operator in program.operators],
        "layouts": {
            name: [layout.whole, encode_arg(layout.region), dict(layout.partial)]
            for name, layout in program.layouts.items()
        },
    }


def decode_program(name: str, value: Any) -> Program:
    """Read a program from JSON."""
    where = f"program {name[:60]!r}"
    entry = mapping(value, where)
    stage = entry.get("stage")
    if not isinstance(stage, int) or isinstance(stage, bool) or stage < 0:
        raise invalid_plan(where, "has no stage")

    def rows(key: str, decode: Callable[[Any], T]) -> tuple[T, ...]:
        return tuple(decode(row) for row in sequence(entry.get(key), f"{where}, {key}"))

    def pairs(key: str) -> Mapping[str, Any]:
        return mapping(entry.get(key), f"{where}, {key}")

    return Program(
        name=name,
        stage=stage,
        operators=rows("operators", _operator),
        tensors={own: decode_tensor(own, row) for own, row in pairs("tensors").items()},
        inputs=rows("inputs", _part),
        parameters=rows("parameters", _part),
        outputs=rows("outputs", _part),
        states=tuple(State(own, text(of, where)) for own, of in pairs("states").items()),
        layouts={own: _layout(row) for own, row in pairs("layouts").items()},
    )


def encode_device(device: Device) -> list[Any]:
    """Return a device as JSON, without its rank, which is its position."""
    return [device.program, {name: encode_size(size) for name, size in device.bindings.items()}]


def decode_device(rank: int, value: Any) -> Device:
    """Read a device from JSON."""
    match value:
        case [str(program), dict(bindings)]:
            return Device(rank, program, {name: decode_size(v) for name, v in bindings.items()})
    raise invalid_plan(f"rank {rank}", "is not a program and its bindings")


def encode_note(note: Note) -> list[Any]:
    """Return a note as JSON."""
    return [note.kind, note.where, note.what, encode_size(note.bytes)]


def decode_note(value: Any) -> Note:
    """Read a note from JSON."""
    match value:
        case [str(kind), str(where), str(what), size]:
            return Note(kind, where, what, decode_size(size))
    raise invalid_plan("notes", f"{repr(value)[:60]} is not a note")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object."""
    if not isinstance(value, dict):
        raise invalid_plan(where, "is not a JSON object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """Return a value that must be a list."""
    if not isinstance(value, list):
        raise invalid_plan(where, "is not a list")
    return value


def text(value: Any, where: str) -> str:
    """Return a value that must be text."""
    if not isinstance(value, str):
        raise invalid_plan(where, f"{repr(value)[:60]} is not text")
    return value


def _encode_part(part: Part) -> list[Any]:
    return [part.name, part.whole, encode_arg(part.region)]


def _part(value: Any) -> Part:
    match value:
        case [str(name), str(whole), list(axes)]:
            return Part(name, whole, _region(name, axes))
    raise invalid_plan("parts", f"{repr(value)[:60]} is not a part")


def _layout(value: Any) -> Layout:
    match value:
        case [str(whole), list(axes), dict(partial)]:
            reductions = {axis: text(of, f"layout of {whole}") for axis, of in partial.items()}
            return Layout(whole, _region(whole, axes), reductions)
    raise invalid_plan("layouts", f"{repr(value)[:60]} is not a layout")


def _region(name: str, axes: list[Any]) -> tuple[Region, ...]:
    found = []
    for axis in axes:
        region = decode_arg(axis)
        if not isinstance(region, tuple):
            raise invalid_plan(name, "its region is not one")
        factors = tuple(factor for factor in region if isinstance(factor, Span | Join))
        if len(factors) < len(region):
            raise invalid_plan(name, "its region is not one")
        found.append(factors)
    return tuple(found)


def _encode_operator(operator: Operator) -> list[Any]:
    return [
        operator.name,
        operator.target,
        {slot: encode_arg(arg) for slot, arg in operator.args.items()},
        list(operator.outputs),
        operator.module,
        operator.source,
        operator.origin,
    ]


def _operator(value: Any) -> Operator:
    match value:
        case [
            str(name), str(target), dict(args), list(outputs),
            str(module), str(source), str(origin),
        ]:  # fmt: skip
            return Operator(
                name=name,
                target=target,
                args={slot: decode_arg(arg) for slot, arg in args.items()},
                outputs=tuple(text(output, name) for output in outputs),
                module=module,
                source=source,
                origin=origin,
            )
    raise invalid_plan("operators", f"{repr(value)[:60]} is not an operator")


def _axis(value: Any) -> tuple[str, int]:
    match value:
        case [str(name), int(degree)]:
            return name, degree
    raise invalid_plan("mesh", f"{repr(value)[:60]} is not an axis")


def _encode_mesh(mesh: Mesh) -> dict[str, Any]:
    """Return a mesh as JSON, with shares or stages if these are unequal."""
    if isinstance(mesh, StagedMesh):
        inner = [[list(axis) for axis in one.axes] for one in mesh.submeshes]
        stages = {"mesh": [[mesh.stage_axis, len(inner)]], "stages": inner}
        return {**_encode_mesh(mesh.submeshes[0]), **stages}
    shares = {name: list(parts) for name, parts in mesh.shares}
    return {"mesh": [list(axis) for axis in mesh.axes], **({"shares": shares} if shares else {})}


def _mesh(axes: list[Any], shares: Any, stages: Any) -> Mesh:
    """Read a mesh from JSON."""
    given = {axis: sequence(of, f"shares {axis}") for axis, of in mapping(shares, "shares").items()}
    if not stages:
        return Mesh(map(_axis, axes), given)
    inner = tuple(
        Mesh(map(_axis, sequence(one, "stages")), given) for one in sequence(stages, "stages")
    )
    if len(axes) != 1 or _axis(axes[0])[1] != len(inner):
        raise invalid_plan("mesh", f"has not the {len(inner)} stages that are listed")
    return StagedMesh(_axis(axes[0])[0], inner)


def _split(value: Any) -> Split:
    match value:
        case [str(name), list(axes), bool(required), bool(no_idle)]:
            over = tuple(text(axis, f"split {name}") for axis in axes)
            return Split(name, over, required, no_idle)
    raise invalid_plan("splits", f"{repr(value)[:60]} is not a split")
