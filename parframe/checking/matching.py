"""Check that all ranks of a group enter the same communication operators, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from parframe.checking.concrete_types import RegionEvaluator
from parframe.checking.findings import Finding
from parframe.checking.samples import Bindings, sample_size, symbol_names
from parframe.graph import Operator
from parframe.plan import Plan, Program, communicates, group_axes
from parframe.rules.communication import (
    ALL_GATHER,
    ALL_REDUCE,
    BROADCAST,
    PLAN_OPERATORS,
    POINT_TO_POINT,
    RECV,
    REDUCE_SCATTER,
    SEND,
)


@attrs.frozen(eq=False)
class ProgramCommunication:
    """Communication operators of one program, by the mesh axes of their groups."""

    program: Program

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """All communication operators, in order."""
        return tuple(op for op in self.program.operators if communicates(op))

    @cached_property
    def collectives(self) -> Mapping[tuple[str, ...], tuple[Operator, ...]]:
        """Operators that a whole group enters, by mesh axes."""
        found: dict[tuple[str, ...], list[Operator]] = {}
        for operator in self.operators:
            if operator.target not in POINT_TO_POINT:
                found.setdefault(group_axes(operator), []).append(operator)
        return {axes: tuple(operators) for axes, operators in found.items()}

    @cached_property
    def pairs(self) -> Mapping[tuple[tuple[str, ...], str, int], tuple[Operator, ...]]:
        """Sends and recvs, by mesh axes, kind and peer."""
        found: dict[tuple[tuple[str, ...], str, int], list[Operator]] = {}
        for operator in self.operators:
            if operator.target in POINT_TO_POINT:
                kind = PLAN_OPERATORS[operator.target].name
                peer = operator.args["peer"]
                key = (group_axes(operator), kind, peer if isinstance(peer, int) else -1)
                found.setdefault(key, []).append(operator)
        return {key: tuple(operators) for key, operators in found.items()}

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in the shapes of the tensors that are communicated."""
        names: set[str] = set()
        for operator in self.operators:
            for value in (*operator.inputs, *operator.outputs):
                tensor = self.program.tensors.get(value)
                if tensor is not None:
                    names.update(name for size in tensor.shape for name in symbol_names(size))
        return tuple(sorted(names))


RankFault = tuple[int, str, str]
"""Number of the rank in its group, name of the operator, and message."""


def check_matching(plan: Plan, bindings: Sequence[Bindings]) -> list[Finding]:
    """Return a finding for every communication that does not match on its group.

    - ``bindings``: the symbols of every rank, in numbers.
    """
    communications = {
        name: ProgramCommunication(program) for name, program in plan.programs.items()
    }
    programs = [device.program for device in plan.devices]
    used = {axes for program in communications.values() for axes in program.collectives}
    used |= {axes for program in communications.values() for axes, _, _ in program.pairs}
    known: dict[object, tuple[RankFault, ...]] = {}
    found: dict[tuple[str, str], list[int]] = {}
    for name, communication in communications.items():
        ranks = [rank for rank, program in enumerate(programs) if program == name]
        for operator, message in _repeated_tags(communication):
            found.setdefault((operator, message), []).extend(ranks)
    for axes in sorted(used):
        for group in plan.mesh.groups(axes):
            group_programs = [communications[programs[rank]] for rank in group]
            values = [
                tuple(bindings[rank].get(name) for name in program.symbols)
                for rank, program in zip(group, group_programs, strict=True)
            ]
            key = (axes, tuple(programs[rank] for rank in group), tuple(values))
            if key not in known:
                known[key] = tuple(
                    _group_faults(axes, group_programs, [bindings[rank] for rank in group])
                )
            for number, operator, message in known[key]:
                found.setdefault((operator, message), []).append(group[number])
    return [
        Finding("matching", tuple(sorted(set(ranks))), message, operator=operator)
        for (operator, message), ranks in found.items()
    ]


def _repeated_tags(program: ProgramCommunication) -> Iterator[tuple[str, str]]:
    """Yield the tags that the same ranks use twice."""
    for axes, operators in program.collectives.items():
        yield from _duplicates(operators, f"on {', '.join(axes)}")
    for (_, kind, peer), operators in program.pairs.items():
        yield from _duplicates(operators, f"in {kind} with rank {peer} of the group")


def _duplicates(operators: Sequence[Operator], where: str) -> Iterator[tuple[str, str]]:
    seen: set[object] = set()
    for operator in operators:
        tag = operator.args["tag"]
        if tag in seen:
            yield operator.name, f"tag {tag!r} is used twice {where}"
        seen.add(tag)


def _group_faults(
    axes: tuple[str, ...], programs: Sequence[ProgramCommunication], bindings: Sequence[Bindings]
) -> Iterator[RankFault]:
    """Yield the faults of the communication of one group."""
    first = programs[0].collectives.get(axes, ())
    for number, program in enumerate(programs[1:], 1):
        yield from _order_faults(number, first, program.collectives.get(axes, ()))
    yield from _value_faults(axes, programs, bindings)
    yield from _pair_faults(axes, programs, bindings)


def _order_faults(
    number: int, first: Sequence[Operator], other: Sequence[Operator]
) -> Iterator[RankFault]:
    """Yield the first difference between the collectives of two ranks."""
    for mine, theirs in zip(first, other, strict=False):
        for slot in ("target", "tag", "reduction", "root"):
            left = mine.target if slot == "target" else mine.args.get(slot)
            right = theirs.target if slot == "target" else theirs.args.get(slot)
            if left != right:
                message = (
                    f"its {slot} is {right}, but {mine.name} on rank 0 of the group has {left}"
                )
                yield number, theirs.name, message
                return
    if len(first) != len(other):
        longer = first if len(first) > len(other) else other
        operator = longer[min(len(first), len(other))]
        missing = f"rank {number}" if longer is first else "rank 0"
        yield number, operator.name, f"{missing} of the group does not enter {operator.args['tag']}"


def _value_faults(
    axes: tuple[str, ...], programs: Sequence[ProgramCommunication], bindings: Sequence[Bindings]
) -> Iterator[RankFault]:
    """Compare shapes, dtypes and parts with those of the first rank, collective by collective."""
    evaluate = RegionEvaluator()
    columns = zip(*(program.collectives.get(axes, ()) for program in programs), strict=False)
    for column in columns:
        yield from _root_faults(column)
        facts = [
            _facts_of(operator, communication.program, values, evaluate)
            for operator, communication, values in zip(column, programs, bindings, strict=True)
        ]
        for number, fact in enumerate(facts[1:], 1):
            wrong = [what for what, value in fact.items() if facts[0].get(what, value) != value]
            if wrong:
                message = f"its {wrong[0]} differs from rank 0 of the group"
                yield number, column[number].name, message
                break


def _root_faults(column: Sequence[Operator]) -> Iterator[RankFault]:
    """Check that the root of a broadcast, and no other rank, sends a value."""
    for number, operator in enumerate(column):
        if operator.target != BROADCAST.target:
            continue
        if bool(operator.inputs) != (operator.args["root"] == number):
            sends = "sends a value, but is not" if operator.inputs else "sends no value, but is"
            yield number, operator.name, f"rank {number} of the group {sends} the root"


def _facts_of(
    operator: Operator, program: Program, bindings: Bindings, evaluate: RegionEvaluator
) -> dict[str, object]:
    """Return the facts that must be equal on all ranks."""
    facts: dict[str, object] = {}
    tensors = [program.tensors.get(v) for v in (*operator.inputs, *operator.outputs)]
    facts["dtype"] = sorted({tensor.dtype for tensor in tensors if tensor is not None})
    kind = PLAN_OPERATORS.get(operator.target)
    values: tuple[str, ...] = ()
    if kind in (ALL_REDUCE, REDUCE_SCATTER):
        values = operator.inputs
    elif kind is ALL_GATHER:
        values = operator.outputs
    elif kind is BROADCAST:
        values = operator.inputs or operator.outputs
    for value in values:
        tensor = program.tensors.get(value)
        if tensor is not None:
            facts["shape"] = tuple(sample_size(size, bindings) for size in tensor.shape)
    if kind in (ALL_GATHER, REDUCE_SCATTER):
        parts: Any = operator.args["parts"]
        facts["parts"] = evaluate(parts, bindings) if isinstance(parts, tuple) else None
    return facts


def _pair_faults(
    axes: tuple[str, ...], programs: Sequence[ProgramCommunication], bindings: Sequence[Bindings]
) -> Iterator[RankFault]:
    """Compare every send with its recv."""
    pairs = {
        (number, key[2]) if key[1] == SEND.name else (key[2], number)
        for number, program in enumerate(programs)
        for key in program.pairs
        if key[0] == axes
    }
    for source, target in sorted(pairs):
        if not (0 <= source < len(programs) and 0 <= target < len(programs)) or source == target:
            yield min(source, target), "", "a rank communicates with itself"
            continue
        sends = programs[source].pairs.get((axes, SEND.name, target), ())
        recvs = programs[target].pairs.get((axes, RECV.name, source), ())
        for sent, received in zip(sends, recvs, strict=False):
            if sent.args["tag"] != received.args["tag"]:
                tags = received.args["tag"], sent.args["tag"]
                yield target, received.name, f"expects {tags[0]!r} where {tags[1]!r} is sent"
                break
            out = programs[source].program.tensors.get(sent.inputs[0])
            into = programs[target].program.tensors.get(received.outputs[0])
            if out is None or into is None:
                continue
            left = tuple(sample_size(size, bindings[source]) for size in out.shape)
            right = tuple(sample_size(size, bindings[target]) for size in into.shape)
            if left != right or out.dtype != into.dtype:
                yield (target, received.name, f"has another recorded shape than {sent.name} sends")
        if len(sends) > len(recvs):
            yield source, sends[len(recvs)].name, f"rank {target} of the group does not receive it"
        elif len(recvs) > len(sends):
            yield target, recvs[len(sends)].name, f"rank {source} of the group does not send it"
