"""Checks of weights: every element that a stage uses is there and in bounds, and none is unused."""

from __future__ import annotations

from collections.abc import Iterator

from parframe.checking.collective_types import ConcreteRanges, coverage_fault
from parframe.checking.concrete_types import ConcreteType, to_concrete
from parframe.checking.findings import Finding
from parframe.checking.plan_types import PlanTypes
from parframe.checking.program_types import ProgramTypes
from parframe.checking.samples import sample_size
from parframe.checking.tensor_types import TensorType, sizes_of
from parframe.plan import Part


def check_weights(plan_types: PlanTypes) -> list[Finding]:
    """Return findings for the parts of weights and inputs that devices have."""
    findings: list[Finding] = []
    stages: dict[tuple[int, str], dict[ConcreteRanges, None]] = {}
    like: dict[tuple[int, str], ConcreteType] = {}
    for types in plan_types.programs.values():
        used = {value for operator in types.program.operators for value in operator.inputs}
        used |= {part.name for part in types.program.outputs}
        for part in types.program.parameters:
            if part.name not in used:
                findings.append(
                    Finding("weights", types.ranks, "", "", f"{part.name!r} is not used")
                )
        for part in (*types.program.inputs, *types.program.parameters):
            tensor_type = types.values.get(part.name)
            if tensor_type is None:
                continue
            findings.extend(_bounds(plan_types, types, part, tensor_type))
            if part.whole in plan_types.model.graph.parameters:
                key = (types.program.stage, part.whole)
                for rank in types.ranks:
                    own = to_concrete(tensor_type, plan_types.bindings[rank])
                    stages.setdefault(key, {})[own.ranges] = None
                    like[key] = own
    symbols = tuple(plan_types.symbols.items())
    known: dict[object, str] = {}
    for (stage, name), parts in stages.items():
        fitting = (like[stage, name].tensor_dims, tuple(parts))
        if fitting not in known:
            known[fitting] = coverage_fault(like[stage, name], list(parts), symbols)
        if known[fitting]:
            findings.append(
                Finding("weights", (), "", "", f"{name!r} in stage {stage}: {known[fitting]}")
            )
    return findings


def _bounds(
    plan_types: PlanTypes, types: ProgramTypes, part: Part, tensor_type: TensorType
) -> Iterator[Finding]:
    """Yield a finding for a region that leaves its tensor."""
    seen: dict[object, bool] = {}
    wrong = []
    for rank in types.ranks:
        bindings = plan_types.bindings[rank]
        own = to_concrete(tensor_type, bindings)
        if own.ranges not in seen:
            seen[own.ranges] = all(
                0 <= low <= high <= size
                for tensor_dim, ranges in zip(own.tensor_dims, own.ranges, strict=True)
                for dim, (start, stop) in ranges
                for low, high, size in zip(
                    start, stop, sample_size(sizes_of(tensor_dim)[dim], bindings), strict=True
                )
            )
        if not seen[own.ranges]:
            wrong.append(rank)
    if wrong:
        yield Finding(
            "weights",
            tuple(wrong),
            "",
            "",
            f"the region of {part.name!r} is outside {part.whole!r}",
        )
