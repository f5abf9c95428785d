"""Checks of the outputs, caches and weights of programs against the model's."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.checking.collective_types import ConcreteRanges, coverage_fault
from parframe.checking.concrete_types import ConcreteType, to_concrete
from parframe.checking.findings import Finding
from parframe.checking.plan_types import PlanTypes
from parframe.checking.program_types import ProgramTypes
from parframe.checking.samples import sample_size
from parframe.checking.shard_regions import align_shard, shard_of_part
from parframe.checking.tensor_types import TensorType, sizes_of
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
            aligned = align_shard(tensor_type.shard, plan_types.model.outer[part.whole])
            tensor_type = attrs.evolve(tensor_type, shard=aligned or tensor_type.shard)
            for rank in types.ranks:
                own = to_concrete(tensor_type, plan_types.bindings[rank])
                parts.setdefault(part.whole, {})[own.ranges] = None
                like[part.whole] = own
    for name in dict.fromkeys(plan_types.model.graph.output_names):
        if name not in parts:
            if name not in unknown:
                findings.append(Finding("output", (), f"no device returns {name!r}"))
            continue
        fault = coverage_fault(like[name], list(parts[name]), tuple(plan_types.symbols.items()))
        if fault:
            findings.append(Finding("output", (), f"{name!r}: {fault}"))
    return findings


def _output(
    plan_types: PlanTypes, types: ProgramTypes, part: Part, tensor_type: TensorType
) -> Iterator[Finding]:
    if tensor_type.partial_terms:
        labels = ", ".join(term.label for term in tensor_type.partial_terms)
        message = f"{part.whole!r} is returned, but {labels} is still a partial sum"
        yield Finding("partial", types.ranks, message)
    tensor_dims = plan_types.model.outer.get(part.whole, ())
    if (
        tensor_type.sum_id != plan_types.model.term_ids.get(part.whole)
        or align_shard(tensor_type.shard, tensor_dims) is None
    ):
        yield Finding("output", types.ranks, f"{tensor_type.label!r} is returned as {part.whole!r}")
        return
    shard = shard_of_part(tensor_type.shard.tensor_dims, part)
    if shard is None:
        message = f"the region of {part.name!r} is not a part of its tensor"
        yield Finding("output", types.ranks, message)
    elif shard is not tensor_type.shard:
        claimed = attrs.evolve(tensor_type, shard=shard)
        wrong = tuple(
            rank
            for rank in types.ranks
            if to_concrete(claimed, plan_types.bindings[rank]).ranges
            != to_concrete(tensor_type, plan_types.bindings[rank]).ranges
        )
        if wrong:
            message = f"the region says another part of {part.whole!r} than is returned"
            yield Finding("output", wrong, message)


def check_states(plan_types: PlanTypes) -> list[Finding]:
    """Return findings for caches that are missing or store the wrong value."""
    return [finding for types in plan_types.programs.values() for finding in _states(types)]


def _states(types: ProgramTypes) -> Iterator[Finding]:
    stored = {state.name: state.value for state in types.program.states}
    if len(stored) < len(types.program.states):
        yield Finding("state", types.ranks, "two caches have the same name")
    expected = {cache.name: cache for cache in _caches(types)}
    read_values = _values_by_sum(types)
    for name, cache in expected.items():
        if name not in stored:
            yield cache.finding(types, f"has no cache {name!r}")
            continue
        read = read_values.get(cache.term, [])
        used = [value for value in read if value in cache.operator.inputs] or read
        mine = types.values.get(stored[name])
        if mine is None or stored[name] in used:
            continue
        used_types = [types.values.get(value) for value in used]
        places = [own.shard for own in used_types if own is not None] or [mine.shard]
        if mine.sum_id != cache.term or mine.partial_terms or mine.shard not in places:
            message = f"the cache {name!r} stores {stored[name]!r}, but {' or '.join(used)} is used"
            yield cache.finding(types, message)
    for name in sorted(set(stored) - set(expected)):
        message = f"the cache {name!r} belongs to no operator of the program"
        yield Finding("state", types.ranks, message)


@attrs.frozen
class _Cache:
    """Cache that a program must have: its name, the id of its contents, and its operator."""

    name: str
    term: int
    operator: Operator
    module: str

    def finding(self, types: ProgramTypes, what: str) -> Finding:
        name, module = self.operator.name, self.module
        return Finding("state", types.ranks, what, operator=name, module=module)


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
                findings.append(Finding("weights", types.ranks, f"{part.name!r} is not used"))
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
            findings.append(Finding("weights", (), f"{name!r} in stage {stage}: {known[fitting]}"))
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
        message = f"the region of {part.name!r} is outside {part.whole!r}"
        yield Finding("weights", tuple(wrong), message)
