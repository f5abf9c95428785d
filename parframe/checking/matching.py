"""Whether all members of a group enter the same communications, in one order, with one meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import attrs

from parframe.checking.concrete_types import Measurer
from parframe.checking.findings import Finding
from parframe.checking.samples import Bindings, numbers, symbol_names
from parframe.graph import Operator
from parframe.layout import Region
from parframe.plan import COMMUNICATION, Plan, Program, group_axes


@attrs.frozen(eq=False)
class Spoken:
    """The communication operators of one program, by the axes of their groups."""

    program: Program

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """All of them, in order."""
        return tuple(op for op in self.program.operators if op.target in COMMUNICATION)

    @cached_property
    def collectives(self) -> Mapping[tuple[str, ...], tuple[Operator, ...]]:
        """Those that a whole group enters."""
        found: dict[tuple[str, ...], list[Operator]] = {}
        for operator in self.operators:
            if operator.target not in ("parframe.send", "parframe.recv"):
                found.setdefault(group_axes(operator), []).append(operator)
        return {axes: tuple(operators) for axes, operators in found.items()}

    @cached_property
    def pairs(self) -> Mapping[tuple[tuple[str, ...], str, int], tuple[Operator, ...]]:
        """Sends and recvs, by axes, kind and peer."""
        found: dict[tuple[tuple[str, ...], str, int], list[Operator]] = {}
        for operator in self.operators:
            if operator.target in ("parframe.send", "parframe.recv"):
                kind = operator.target.removeprefix("parframe.")
                peer = operator.args["peer"]
                key = (group_axes(operator), kind, peer if isinstance(peer, int) else -1)
                found.setdefault(key, []).append(operator)
        return {key: tuple(operators) for key, operators in found.items()}

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The symbols in the shapes and parts of what is communicated."""
        names: set[str] = set()
        for operator in self.operators:
            for value in (*operator.inputs, *operator.outputs):
                tensor = self.program.tensors.get(value)
                if tensor is not None:
                    names.update(name for size in tensor.shape for name in symbol_names(size))
        return tuple(sorted(names))


Fault = tuple[int, str, str]
"""The member it is wrong on, the operator and the message."""


def check_matching(plan: Plan, bindings: Sequence[Bindings]) -> list[Finding]:
    """What does not meet in a plan; ``bindings`` has every rank's symbols."""
    spoken = {name: Spoken(program) for name, program in plan.programs.items()}
    programs = [device.program for device in plan.devices]
    used = {axes for one in spoken.values() for axes in one.collectives}
    used |= {axes for one in spoken.values() for axes, _, _ in one.pairs}
    known: dict[object, tuple[Fault, ...]] = {}
    found: dict[tuple[str, str], list[int]] = {}
    for name, one in spoken.items():
        ranks = [rank for rank, program in enumerate(programs) if program == name]
        for operator, message in _tags(one):
            found.setdefault((operator, message), []).extend(ranks)
    for axes in sorted(used):
        for group in plan.mesh.groups(axes):
            members = [spoken[programs[rank]] for rank in group]
            values = [
                tuple(bindings[rank].get(name) for name in one.symbols)
                for rank, one in zip(group, members, strict=True)
            ]
            key = (axes, tuple(programs[rank] for rank in group), tuple(values))
            if key not in known:
                known[key] = tuple(_group(axes, members, [bindings[rank] for rank in group]))
            for member, operator, message in known[key]:
                found.setdefault((operator, message), []).append(group[member])
    return [
        Finding("matching", tuple(sorted(set(ranks))), operator, "", message)
        for (operator, message), ranks in found.items()
    ]


def _tags(one: Spoken) -> Iterator[tuple[str, str]]:
    """Tags that are used twice by the same members."""
    for axes, operators in one.collectives.items():
        yield from _twice(operators, f"on {', '.join(axes)}")
    for (_, kind, peer), operators in one.pairs.items():
        yield from _twice(operators, f"in {kind} with member {peer}")


def _twice(operators: Sequence[Operator], where: str) -> Iterator[tuple[str, str]]:
    seen: set[object] = set()
    for operator in operators:
        tag = operator.args["tag"]
        if tag in seen:
            yield operator.name, f"the tag {tag!r} is used twice {where}"
        seen.add(tag)


def _group(
    axes: tuple[str, ...], members: Sequence[Spoken], bindings: Sequence[Bindings]
) -> Iterator[Fault]:
    first = members[0].collectives.get(axes, ())
    for number, member in enumerate(members[1:], 1):
        yield from _sequences(number, first, member.collectives.get(axes, ()))
    yield from _meanings(axes, members, bindings)
    yield from _peers(axes, members, bindings)


def _sequences(
    number: int, first: Sequence[Operator], other: Sequence[Operator]
) -> Iterator[Fault]:
    """The first place where two members' sequences differ."""
    for mine, theirs in zip(first, other, strict=False):
        for slot in ("target", "tag", "reduction", "root"):
            left = mine.target if slot == "target" else mine.args.get(slot)
            right = theirs.target if slot == "target" else theirs.args.get(slot)
            if left != right:
                yield (
                    number,
                    theirs.name,
                    (f"meets {mine.name} of member 0, whose {slot} is {left}, not {right}"),
                )
                return
    if len(first) != len(other):
        longer = first if len(first) > len(other) else other
        operator = longer[min(len(first), len(other))]
        missing = f"member {number}" if longer is first else "member 0"
        yield number, operator.name, f"{missing} of the group does not enter {operator.args['tag']}"


def _meanings(
    axes: tuple[str, ...], members: Sequence[Spoken], bindings: Sequence[Bindings]
) -> Iterator[Fault]:
    """Shapes, dtypes and parts in numbers, member by member."""
    evaluate_size = Measurer()
    columns = zip(*(member.collectives.get(axes, ()) for member in members), strict=False)
    for column in columns:
        yield from _roots(column)
        facts = [
            _facts(operator, member.program, values, evaluate_size)
            for operator, member, values in zip(column, members, bindings, strict=True)
        ]
        for number, fact in enumerate(facts[1:], 1):
            wrong = [what for what, value in fact.items() if facts[0].get(what, value) != value]
            if wrong:
                yield number, column[number].name, f"its {wrong[0]} is not that of member 0"
                break


def _roots(column: Sequence[Operator]) -> Iterator[Fault]:
    """The root of a broadcast gives, and nobody else."""
    for number, operator in enumerate(column):
        if operator.target != "parframe.broadcast":
            continue
        if bool(operator.inputs) != (operator.args["root"] == number):
            gives = "gives a value, but is not" if operator.inputs else "gives nothing, but is"
            yield number, operator.name, f"member {number} {gives} the root"


def _facts(
    operator: Operator, program: Program, bindings: Bindings, evaluate_size: Measurer
) -> dict[str, object]:
    """What must be the same on all members."""
    facts: dict[str, object] = {}
    tensors = [program.tensors.get(v) for v in (*operator.inputs, *operator.outputs)]
    facts["dtype"] = sorted({tensor.dtype for tensor in tensors if tensor is not None})
    kind = operator.target.removeprefix("parframe.")
    shape_of = {
        "all_reduce": operator.inputs,
        "reduce_scatter": operator.inputs,
        "all_gather": operator.outputs,
        "broadcast": operator.inputs or operator.outputs,
    }.get(kind, ())
    for value in shape_of:
        tensor = program.tensors.get(value)
        if tensor is not None:
            facts["shape"] = tuple(numbers(size, bindings) for size in tensor.shape)
    if kind in ("all_gather", "reduce_scatter"):
        facts["parts"] = _measured(operator.args["parts"], bindings, evaluate_size)
    return facts


def _measured(parts: object, bindings: Bindings, evaluate_size: Measurer) -> object:
    if not isinstance(parts, tuple):
        return None
    regions: tuple[tuple[Region, ...], ...] = parts
    return evaluate_size(regions, bindings)


def _peers(
    axes: tuple[str, ...], members: Sequence[Spoken], bindings: Sequence[Bindings]
) -> Iterator[Fault]:
    """Every send with its recv, pair by pair."""
    pairs = {
        (number, key[2]) if key[1] == "send" else (key[2], number)
        for number, member in enumerate(members)
        for key in member.pairs
        if key[0] == axes
    }
    for source, target in sorted(pairs):
        if not (0 <= source < len(members) and 0 <= target < len(members)) or source == target:
            yield min(source, target), "", "a device communicates with itself"
            continue
        sends = members[source].pairs.get((axes, "send", target), ())
        recvs = members[target].pairs.get((axes, "recv", source), ())
        for sent, received in zip(sends, recvs, strict=False):
            if sent.args["tag"] != received.args["tag"]:
                yield (
                    target,
                    received.name,
                    f"expects {received.args['tag']!r} where {sent.args['tag']!r} is sent",
                )
                break
            out = members[source].program.tensors.get(sent.inputs[0])
            into = members[target].program.tensors.get(received.outputs[0])
            if out is None or into is None:
                continue
            left = tuple(numbers(size, bindings[source]) for size in out.shape)
            right = tuple(numbers(size, bindings[target]) for size in into.shape)
            if left != right or out.dtype != into.dtype:
                yield (
                    target,
                    received.name,
                    f"is recorded with another shape than {sent.name} sends",
                )
        if len(sends) > len(recvs):
            yield source, sends[len(recvs)].name, f"member {target} does not receive it"
        elif len(recvs) > len(sends):
            yield target, recvs[len(sends)].name, f"member {source} does not send it"
