"""Program of one device: its inputs, weights, operators in order, and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from rich.console import RenderableType

from parframe.graph import Operator, Tensor
from parframe.layout import Join, Region, Span
from parframe.plan import Device, Part, Plan, communicates, group_axes
from parframe.plan.bindings import bound_part, bound_tensor
from parframe.report.formatting import counted, runs
from parframe.report.mesh import abridged
from parframe.report.screen import heading, lines, table
from parframe.sizes import format_size

_NARROW = {"part": 42, "operator": 17, "result": 11, "shape": 26, "module or ranks": 16}
"""Widths of columns, in characters, where the terminal is narrow."""


def device_facts(plan: Plan, rank: int) -> dict[str, Any]:
    """Return the parts and operators of a rank, with the rank's sizes as numbers.

    A size that depends on the inputs (a share of the batch) stays a symbol, which ``bindings``
    explains.
    """
    program = plan.program(rank)
    device = plan.devices[rank]
    numbers = {name: size for name, size in device.bindings.items() if isinstance(size, int)}
    own = attrs.evolve(device, bindings=numbers)
    shapes = {name: _shape(bound_tensor(t, numbers)) for name, t in program.tensors.items()}
    return {
        "rank": rank,
        "coordinates": plan.mesh.coordinates(rank),
        "stage": program.stage,
        "program": program.name,
        "bindings": {name: format_size(size) for name, size in device.bindings.items()},
        "inputs": _parts(program.inputs, own, shapes),
        "parameters": _parts(program.parameters, own, shapes),
        "operators": [_operator(o, plan, rank, shapes) for o in program.operators],
        "outputs": _parts(program.outputs, own, shapes),
    }


def draw_device(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield tables of the parts and the operators, with the group of each communication."""
    place = " ".join(f"{axis}={at}" for axis, at in facts["coordinates"].items())
    yield heading(
        f"Device {facts['rank']}",
        f"{place}{', ' if place else ''}stage {facts['stage']}, program {facts['program']}, "
        f"{counted(len(facts['operators']), 'operator')}",
    )
    parts = [_part_row("input", part) for part in facts["inputs"]]
    parts += [_part_row("weight", part) for part in facts["parameters"]]
    yield table(("", "part", "shape"), abridged(parts, 3, most=24), shorten=_NARROW)
    yield table(
        ("operator", "result", "shape", "module or ranks"),
        _rows(facts["operators"]),
        shorten=_NARROW,
    )
    if facts["outputs"]:
        outputs = [_part_row("output", part) for part in facts["outputs"]]
        yield table(("", "part", "shape"), outputs, shorten=_NARROW)
    yield lines(
        f"{name} = {size}" for name, size in facts["bindings"].items() if not size.isdecimal()
    )


def _operator(
    operator: Operator, plan: Plan, rank: int, shapes: Mapping[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": operator.name,
        "target": operator.target,
        "takes": list(operator.inputs),
        "gives": {value: shapes[value] for value in operator.outputs},
        "module": operator.module,
        "source": operator.source,
    }
    if communicates(operator):
        axes = group_axes(operator)
        found["axes"], found["group"] = list(axes), list(plan.mesh.group(rank, axes))
        peer = operator.args.get("peer")
        if isinstance(peer, int):
            found["peer"] = found["group"][peer]
    return found


def _rows(operators: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    """Yield a row for each operator, after a row with the name of its layer."""
    before = ""
    for operator in operators:
        layer, _, name = operator["name"].rpartition("/")
        if layer != before:
            yield layer, "", "", ""
        before = layer
        module = operator["module"]
        of = module.removeprefix(f"{layer}.") if layer else module
        if "group" in operator:
            of = f"{','.join(operator['axes'])}: {_others(operator)}"
        target = operator["target"].removeprefix("aten.").removesuffix(".default")
        result = ", ".join(value.rpartition("/")[2] for value in operator["gives"]) or name
        yield (
            f"  {target.removeprefix('parframe.')}",
            result,
            ", ".join(operator["gives"].values()),
            of,
        )


def _others(operator: Mapping[str, Any]) -> str:
    """Return the ranks of a communication, as text."""
    if "peer" in operator:
        return f"{'from' if operator['gives'] else 'to'} {operator['peer']}"
    return runs(operator["group"]).replace(",", "")


def _parts(
    parts: Sequence[Part], device: Device, shapes: Mapping[str, str]
) -> list[dict[str, str]]:
    found = []
    for part in parts:
        regions = [_region(region) for region in bound_part(part, device).region]
        whole = all(region == ":" for region in regions)
        found.append(
            {
                "name": part.name,
                "whole": part.whole,
                "region": "" if whole else f"[{', '.join(regions)}]",
                "shape": shapes[part.name],
            }
        )
    return found


def _part_row(kind: str, part: Mapping[str, str]) -> list[str]:
    return [kind, f"{part['whole']}{part['region']}", part["shape"]]


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(format_size(size) for size in tensor.shape)}]"


def _region(region: Region) -> str:
    if all(isinstance(factor, Span) and factor.whole for factor in region):
        return ":"
    return " * ".join(_factor(factor) for factor in region)


def _factor(factor: Span | Join) -> str:
    if isinstance(factor, Join):
        return " | ".join(_region(part) for part in factor.parts)
    if factor.whole:
        return format_size(factor.size)
    return f"{format_size(factor.start)}:{format_size(factor.stop)}"
