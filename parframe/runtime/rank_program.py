"""A device's part of a plan made ready to be written: numbers for what is known of its rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from parframe.fold import fold
from parframe.graph import Arg, Input, Operator, OperatorGraph, Parameter, Tensor
from parframe.layout import Join, Span
from parframe.plan import COMMUNICATION, Device, Plan, Program, group_axes
from parframe.plan.bindings import bound_part, bound_region, bound_tensor
from parframe.rules.table import EXCHANGES
from parframe.runtime.cached_program import KEPT_POSITIONS, SLOTS, Keeping, Kept, keeping
from parframe.sizes import Size, substitute, symbol, symbols_of

_PEERS = ("parframe.send", "parframe.recv")


@attrs.frozen
class Transfer:
    """A value that goes from one rank to another."""

    value: Tensor
    peer: int
    axes: tuple[str, ...]


@attrs.frozen
class Prepared:
    """A device's program, ready to be written.

    Parameters
    ----------
    graph
        The folded program. Its inputs are the device's own, then what it receives, then
        `SLOTS`, `KEPT_POSITIONS` and its caches if it keeps; its outputs are by their names.
    program
        The program, its numbers known.
    receives, sends
        What comes from and goes to other ranks, in order.
    formulas
        What the device's symbols are, where they are no numbers.
    keeping
        What it keeps, if it does.
    """

    graph: OperatorGraph
    program: Program
    receives: tuple[Transfer, ...]
    sends: tuple[Transfer, ...]
    formulas: Mapping[str, Size]
    keeping: Keeping | None


def prepare(plan: Plan, rank: int, keeps: bool) -> Prepared:
    """Make ready what a rank does.

    Parameters
    ----------
    plan
        The plan.
    rank
        The rank.
    keeps
        Whether it keeps keys and values between steps.

    Raises
    ------
    ParframeError
        Of kind ``run``, if it is to keep and cannot.
    """
    device = plan.devices[rank]
    program = bound_program(plan.program(rank), device)
    formulas = {name: size for name, size in device.bindings.items() if not isinstance(size, int)}
    kept = keeping(program, lengths_of(plan, formulas)) if keeps else None
    program = kept.program if kept is not None else program
    receives, sends = (tuple(_transfers(plan, rank, program, kind)) for kind in _PEERS[::-1])
    inner = [operator for operator in program.operators if operator.target not in _PEERS]
    inputs = {part.name: program.tensors[part.name] for part in program.inputs}
    inputs.update((transfer.value.name, transfer.value) for transfer in receives)
    if kept is not None:
        inputs.update(_of_cache(plan, program, kept.kept))
    outputs = [part.name for part in program.outputs]
    outputs += [transfer.value.name for transfer in sends]
    peers = _Peers(plan)
    graph = fold(
        [_untagged(peers, rank, operator) for operator in inner],
        program.tensors,
        {name: Input(name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()},
        {part.name: _parameter(plan, program, part) for part in program.parameters},
        {name: name for name in outputs},
    )
    return Prepared(graph, program, receives, sends, formulas, kept)


def bound_program(program: Program, device: Device) -> Program:
    """The program with the device's numbers for its symbols, where they are numbers."""
    numbers = {name: size for name, size in device.bindings.items() if isinstance(size, int)}
    known = attrs.evolve(device, bindings=numbers)
    return attrs.evolve(
        program,
        operators=tuple(
            attrs.evolve(op, args={slot: _bound(arg, numbers) for slot, arg in op.args.items()})
            for op in program.operators
        ),
        tensors={name: bound_tensor(own, numbers) for name, own in program.tensors.items()},
        inputs=tuple(bound_part(part, known) for part in program.inputs),
        parameters=tuple(bound_part(part, known) for part in program.parameters),
        outputs=tuple(bound_part(part, known) for part in program.outputs),
    )


def groups_of(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """All groups of more than one rank that communicate, each once, in one order everywhere."""
    axes = dict.fromkeys(
        group_axes(operator)
        for program in plan.programs.values()
        for operator in program.operators
        if operator.target in COMMUNICATION
    )
    found = {
        plan.mesh.group(rank, names)
        for rank in range(plan.mesh.size)
        for names in axes
        if _has(plan, rank, names)
    }
    return tuple(sorted(group for group in found if len(group) > 1))


def _has(plan: Plan, rank: int, axes: tuple[str, ...]) -> bool:
    operators = plan.program(rank).operators
    return any(op.target in COMMUNICATION and group_axes(op) == axes for op in operators)


def lengths_of(plan: Plan, formulas: Mapping[str, Size]) -> set[str]:
    """The symbols that are, or follow from, the length of the sequence."""
    found = {
        name
        for given in plan.graph.inputs.values()
        for size, axis in zip(given.shape, given.axes, strict=False)
        if axis == "sequence"
        for name in symbols_of(size)
    }
    return found | {name for name, size in formulas.items() if symbols_of(size) & found}


def _transfers(plan: Plan, rank: int, program: Program, kind: str) -> Iterator[Transfer]:
    for operator in program.operators:
        if operator.target == kind:
            axes = group_axes(operator)
            name = (*operator.inputs, *operator.outputs)[0]
            peer: Any = operator.args["peer"]
            yield Transfer(program.tensors[name], plan.mesh.group(rank, axes)[peer], axes)


def _of_cache(plan: Plan, program: Program, kept: Mapping[str, Kept]) -> dict[str, Tensor]:
    """The inputs by which a program keeps."""
    found = {name: program.tensors[name] for name in kept}
    if not kept:
        return found
    rows = next(iter(kept.values())).shape[0]
    slots = Tensor(SLOTS, (rows, symbol("tokens")), "int64")
    positions = Tensor(KEPT_POSITIONS, (rows, symbol("context")), "int64")
    return {SLOTS: slots, KEPT_POSITIONS: positions, **found}


def _parameter(plan: Plan, program: Program, part: Any) -> Parameter:
    whole, own = plan.graph.parameters[part.whole], program.tensors[part.name]
    return attrs.evolve(whole, name=part.name, shape=own.shape, dtype=own.dtype)


class _Peers:
    """The exchanges of all ranks by their tags, each rank looked at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.known: dict[int, tuple[Program, dict[Arg, Operator]]] = {}

    def find(self, rank: int, tag: Arg) -> tuple[Program, Operator]:
        """The exchange of this tag on a rank, and its program, their numbers known."""
        if rank not in self.known:
            program = bound_program(self.plan.program(rank), self.plan.devices[rank])
            operators = (op for op in program.operators if op.target in EXCHANGES)
            self.known[rank] = program, {op.args["tag"]: op for op in operators}
        program, tagged = self.known[rank]
        return program, tagged[tag]


def _untagged(peers: _Peers, rank: int, operator: Operator) -> Operator:
    """A communication without its tag, so that equal layers are equal.

    Of an exchange, what all members bring takes the place of this device's own.
    """
    if operator.target not in COMMUNICATION:
        return operator
    args = {slot: arg for slot, arg in operator.args.items() if slot not in ("tag", "travels")}
    if operator.target in EXCHANGES:
        args.update(_brought(peers, rank, operator))
    return attrs.evolve(operator, args=args)


def _brought(peers: _Peers, rank: int, operator: Operator) -> dict[str, Arg]:
    """What the members of an exchange bring, one for each."""
    members = peers.plan.mesh.group(rank, group_axes(operator))
    theirs = [peers.find(member, operator.args["tag"]) for member in members]
    found: dict[str, Arg] = {}
    for slot, name, axis in (("query", "queries", 2), ("key", "keys", 2), ("up", "counts", 0)):
        if slot in operator.slots:
            sizes = []
            for member, (program, own) in zip(members, theirs, strict=True):
                tensor = program.tensors[own.inputs[own.slots.index(slot)]]
                sizes.append(substitute(tensor.shape[axis], peers.plan.devices[member].bindings))
            found[name] = tuple(sizes)
    if "first" in operator.args:
        found["firsts"] = tuple(own.args["first"] for _, own in theirs)
    return found


def _bound(arg: Any, numbers: Mapping[str, Size]) -> Any:
    if isinstance(arg, tuple):
        if arg and all(isinstance(part, Span | Join) for part in arg):
            return bound_region(arg, numbers)
        return tuple(_bound(part, numbers) for part in arg)
    return substitute(arg, numbers) if hasattr(arg, "free_symbols") else arg
