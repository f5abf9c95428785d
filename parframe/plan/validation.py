"""Validation of plans: every name is defined, and every group exists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from parframe.errors import ParframeError
from parframe.graph import BYTES, Arg, Operator, OperatorGraph, Ref
from parframe.layout import Join, Span
from parframe.mesh import Mesh, StagedMesh
from parframe.plan.program import Part, Program, group_axes
from parframe.rules.communication import PLAN_OPERATORS
from parframe.rules.table import DISTRIBUTED_FORMS

if TYPE_CHECKING:
    from parframe.plan.plan import Plan

REDUCTIONS = ("sum", "max", "min", "prod", "any", "all")
"""Reductions that a communication operator may have."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def validate_plan(plan: Plan) -> Plan:
    """Return a plan that must be legal: every name is defined once, and before it is used.

    Raises
    ------
    ParframeError
        Of kind ``plan``, naming the first place that is not.
    """
    _verify_splits(plan)
    ranks = _verify_devices(plan)
    for name, program in plan.programs.items():
        if program.name != name or not _FILE_NAME.fullmatch(name):
            raise invalid_plan(f"program {name[:60]!r}", "its name cannot be a file's name")
        _verify_program(program, plan.graph, plan.mesh, ranks.get(name, 0))
    folded = {name.casefold() for name in plan.programs}
    if len(folded) < len(plan.programs):
        raise invalid_plan("programs", "two names differ in case alone")
    return plan


def _verify_devices(plan: Plan) -> dict[str, int]:
    """Check the devices, and return the first rank of every program."""
    first: dict[str, int] = {}
    if [device.rank for device in plan.devices] != list(range(plan.mesh.size)):
        raise invalid_plan("devices", f"are not the ranks of the mesh {plan.mesh}")
    for device in plan.devices:
        if device.program not in plan.programs:
            raise invalid_plan(f"rank {device.rank}", f"has no program {device.program[:60]!r}")
        first.setdefault(device.program, device.rank)
        if isinstance(plan.mesh, StagedMesh):
            own, stage = plan.programs[device.program].stage, plan.mesh.stage(device.rank)
            if own != stage:
                raise invalid_plan(
                    f"rank {device.rank}", f"is in stage {stage}, its program in {own}"
                )
    return first


def invalid_plan(where: str, what: str) -> ParframeError:
    """Return the error of a plan that is not legal."""
    return ParframeError("plan", where, what, "partition the model again")


def _verify_splits(plan: Plan) -> None:
    for split in plan.placing.splits:
        for axis in split.axes:
            if axis not in plan.mesh.names:
                raise invalid_plan(f"split {split.name!r}", f"the mesh has no axis {axis!r}")


def _verify_program(program: Program, graph: OperatorGraph, mesh: Mesh, rank: int) -> None:
    defined: set[str] = set()
    for kind, parts, wholes in (
        ("input", program.inputs, graph.inputs),
        ("parameter", program.parameters, graph.parameters),
    ):
        for part in parts:
            _verify_part(f"{program.name}, {kind} {part.name}", part, wholes)
            _define(program, part.name, defined)
    names: set[str] = set()
    for operator in program.operators:
        where = f"{program.name}, {operator.name}"
        if operator.name in names:
            raise invalid_plan(where, "the name is given twice")
        names.add(operator.name)
        for name in operator.inputs:
            if name not in defined:
                raise invalid_plan(where, f"uses {name!r} before it is defined")
        _verify_fields(where, operator, mesh, rank)
        for name in operator.outputs:
            _define(program, name, defined)
    for part in program.outputs:
        where = f"{program.name}, output {part.name}"
        if part.name not in defined:
            raise invalid_plan(where, "nothing defines it")
        outputs = {name: graph.tensors[name] for name in graph.output_names}
        _verify_part(where, part, outputs)
    for state in program.states:
        if state.value not in defined:
            raise invalid_plan(
                f"{program.name}, state {state.name}", f"nothing defines {state.value!r}"
            )


def _define(program: Program, name: str, defined: set[str]) -> None:
    tensor = program.tensors.get(name)
    if name in defined or tensor is None or tensor.name != name or tensor.dtype not in BYTES:
        raise invalid_plan(f"{program.name}, {name}", "is defined twice or has no shape")
    defined.add(name)


def _verify_part(where: str, part: Part, wholes: Mapping[str, Any]) -> None:
    whole = wholes.get(part.whole)
    if whole is None:
        raise invalid_plan(where, f"the model has no {part.whole!r}")
    if len(part.region) != len(whole.shape):
        raise invalid_plan(where, f"has {len(part.region)} axes, {part.whole} {len(whole.shape)}")


def _verify_fields(where: str, operator: Operator, mesh: Mesh, rank: int) -> None:
    if operator.target in DISTRIBUTED_FORMS:
        _verify_distributed_form(where, operator, mesh)
        return
    plan_operator = PLAN_OPERATORS.get(operator.target)
    if plan_operator is None:
        return
    group = 1
    fields = (*plan_operator.arguments, *plan_operator.optional)
    for name in fields:
        if name not in operator.args:
            if name in plan_operator.optional:
                continue
            raise invalid_plan(where, f"{operator.target} has no {name!r}")
        if not _CHECKS[name](operator.args[name], group, mesh):
            raise invalid_plan(where, f"its {name!r} is {str(operator.args[name])[:60]}")
        if name == "axes":
            group = mesh.group_size(group_axes(operator), rank)
    extra = set(operator.args) - set(fields)
    if extra or len(operator.outputs) not in plan_operator.results:
        raise invalid_plan(
            where, f"{operator.target} has {sorted(extra) or operator.outputs} too many"
        )


def _verify_distributed_form(where: str, operator: Operator, mesh: Mesh) -> None:
    for name in ("travels", "axes", "tag"):
        if name not in operator.args:
            raise invalid_plan(where, f"{operator.target} has no {name!r}")
        if not _CHECKS[name](operator.args[name], 1, mesh):
            raise invalid_plan(where, f"its {name!r} is {str(operator.args[name])[:60]}")
    travels: Any = operator.args["travels"]
    strange = sorted(set(travels) - set(operator.slots))
    if strange or len(operator.outputs) != 1:
        what = f"has no {strange[0]!r} to send" if strange else "does not give one value"
        raise invalid_plan(where, f"{operator.target} {what}")


def _is_axes(arg: Arg, group: int, mesh: Mesh) -> bool:
    return (
        isinstance(arg, tuple)
        and all(isinstance(axis, str) for axis in arg)
        and mesh.has_groups([str(axis) for axis in arg])
    )


def _is_group_rank(arg: Arg, group: int, mesh: Mesh) -> bool:
    return isinstance(arg, int) and not isinstance(arg, bool) and 0 <= arg < group


def _is_regions(arg: Arg, group: int, mesh: Mesh) -> bool:
    return (
        isinstance(arg, tuple)
        and len(arg) == group
        and all(map(_is_region, arg))
        and len({len(part) for part in arg if isinstance(part, tuple)}) == 1
    )


def _is_region(arg: Arg) -> bool:
    return isinstance(arg, tuple) and all(
        isinstance(axis, tuple) and _all_factors(axis) for axis in arg
    )


def _all_factors(axis: Iterable[Any]) -> bool:
    return all(isinstance(factor, Span | Join) for factor in axis)


_CHECKS: Mapping[str, Callable[[Arg, int, Mesh], bool]] = {
    "input": lambda arg, group, mesh: isinstance(arg, Ref),
    "axes": _is_axes,
    "travels": lambda arg, group, mesh: (
        isinstance(arg, tuple) and all(isinstance(slot, str) for slot in arg)
    ),
    "reduction": lambda arg, group, mesh: arg in REDUCTIONS,
    "parts": _is_regions,
    "sends": _is_regions,
    "part": lambda arg, group, mesh: _is_region(arg),
    "root": _is_group_rank,
    "peer": _is_group_rank,
    "tag": lambda arg, group, mesh: isinstance(arg, str | int) and not isinstance(arg, bool),
}
