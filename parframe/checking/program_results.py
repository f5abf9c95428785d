"""Checks of the outputs and caches of programs against the model's."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.checking.collective_types import ConcreteRanges, coverage_fault
from parframe.checking.concrete_types import ConcreteType, to_concrete
from parframe.checking.findings import Finding
from parframe.checking.plan_types import PlanTypes
from parframe.checking.program_types import ProgramTypes
from parframe.checking.shard_regions import align_shard, shard_of_part
from parframe.checking.tensor_types import TensorType
from parframe.graph import Operator
from parframe.plan import Part


def check_outputs(plan_types: PlanTypes) -> list[Finding]:
    """Return findings for outputs that are missing, partial, or wrong."""
    findings: list[Finding] = []
    parts: dict[str, dict[ConcreteRanges, None]] = {}
    like: dict[str, ConcreteType] = {}
    unknown: set[str] = set()
    for types in plan_types.programs.values():
        for part in types.program.outputs:
            tensor_type = types.values.get(part.name)
            if tensor_type is None:
                unknown.add(part.whole)
                continue
            faults = list(_output(plan_types, types, part, tensor_type))
            findings.extend(faults)
            if faults:
                unknown.add(part.whole)
                continue
            fitted = (
                align_shard(tensor_type.shard, plan_types.model.outer[part.whole])
                or tensor_type.shard
            )
            for rank in types.ranks:
                own = to_concrete(
                    attrs.evolve(tensor_type, shard=fitted), plan_types.bindings[rank]
                )
                parts.setdefault(part.whole, {})[own.ranges] = None
                like[part.whole] = own
    for name in dict.fromkeys(plan_types.model.graph.output_names):
        if name not in parts:
            if name not in unknown:
                findings.append(Finding("output", (), "", "", f"no device returns {name!r}"))
            continue
        fault = coverage_fault(like[name], list(parts[name]), tuple(plan_types.symbols.items()))
        if fault:
            findings.append(Finding("output", (), "", "", f"{name!r}: {fault}"))
    return findings


def _output(
    plan_types: PlanTypes, types: ProgramTypes, part: Part, tensor_type: TensorType
) -> Iterator[Finding]:
    if tensor_type.partial_terms:
        labels = ", ".join(term.label for term in tensor_type.partial_terms)
        yield Finding(
            "partial", types.ranks, "", "",
            f"{part.whole!r} is returned, but {labels} is still a partial sum",
        )  # fmt: skip
    tensor_dims = plan_types.model.outer.get(part.whole, ())
    if (
        tensor_type.sum_id != plan_types.model.term_ids.get(part.whole)
        or align_shard(tensor_type.shard, tensor_dims) is None
    ):
        yield Finding(
            "output", types.ranks, "", "", f"{tensor_type.label!r} is returned as {part.whole!r}"
        )
        return
    shard = shard_of_part(tensor_type.shard.tensor_dims, part)
    if shard is None:
        yield Finding(
            "output",
            types.ranks,
            "",
            "",
            f"the region of {part.name!r} is not a part of its tensor",
        )
    elif shard is not tensor_type.shard:
        claimed = attrs.evolve(tensor_type, shard=shard)
        wrong = tuple(
            rank
            for rank in types.ranks
            if to_concrete(claimed, plan_types.bindings[rank]).ranges
            != to_concrete(tensor_type, plan_types.bindings[rank]).ranges
        )
        if wrong:
            yield Finding(
                "output",
                wrong,
                "",
                "",
                f"the region says another part of {part.whole!r} than is returned",
            )


def check_states(plan_types: PlanTypes) -> list[Finding]:
    """Return findings for caches that are missing or store the wrong value."""
    return [finding for types in plan_types.programs.values() for finding in _states(types)]


def _states(types: ProgramTypes) -> Iterator[Finding]:
    stored = {state.name: state.value for state in types.program.states}
    if len(stored) < len(types.program.states):
        yield Finding("state", types.ranks, "", "", "two caches have the same name")
    expected = {cache.name: cache for cache in _caches(types)}
    read_values = _values_by_sum(types)
    for name, cache in expected.items():
        if name not in stored:
            yield _state_finding(types, cache, f"has no cache {name!r}")
            continue
        read = read_values.get(cache.term, [])
        used = [value for value in read if value in cache.operator.inputs] or read
        mine = types.values.get(stored[name])
        if mine is None or stored[name] in used:
            continue
        places = [
            tensor_type.shard
            for value in used
            if (tensor_type := types.values.get(value)) is not None
        ]
        if (
            mine.sum_id != cache.term
            or mine.partial_terms
            or mine.shard not in (places or [mine.shard])
        ):
            message = f"the cache {name!r} stores {stored[name]!r}, but {' or '.join(used)} is used"
            yield _state_finding(types, cache, message)
    for name in sorted(set(stored) - set(expected)):
        yield Finding(
            "state",
            types.ranks,
            "",
            "",
            f"the cache {name!r} belongs to no operator of the program",
        )


@attrs.frozen
class _Cache:
    """Cache that a program must have: its name, the id of its contents, and its operator."""

    name: str
    term: int
    operator: Operator
    module: str


def _caches(types: ProgramTypes) -> Iterator[_Cache]:
    for operator, origin in zip(types.program.operators, types.origins, strict=True):
        for state in origin.block.states if origin is not None else ():
            if origin is not None and state.name.rpartition(".")[0] == origin.operator.name:
                name = f"{origin.call.name}/{state.name}" if origin.call.name else state.name
                term = types.model.term_ids[origin.names[state.value]]
                yield _Cache(name, term, operator, origin.module)


def _values_by_sum(types: ProgramTypes) -> dict[int, list[str]]:
    """Return the values that operators take, by the id of their sum."""
    found: dict[int, list[str]] = {}
    values = dict.fromkeys(value for op in types.program.operators for value in op.inputs)
    for value in values:
        tensor_type = types.values.get(value)
        if tensor_type is not None:
            found.setdefault(tensor_type.sum_id, []).append(value)
    return found


def _state_finding(types: ProgramTypes, cache: _Cache, what: str) -> Finding:
    return Finding("state", types.ranks, cache.operator.name, cache.module, what)
