"""Program of one rank, ready to be emitted: bound to the rank's sizes, and folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from parframe.fold import fold
from parframe.graph import Arg, Input, Operator, OperatorGraph, Parameter, Tensor
from parframe.layout import Join, Span
from parframe.plan import Device, Plan, Program, communicates, group_axes
from parframe.plan.bindings import bound_part, bound_region, bound_tensor
from parframe.rules import DistributedForm
from parframe.rules.communication import POINT_TO_POINT, RECV, SEND
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.runtime.cached_program import (
    CACHED_POSITIONS,
    SLOTS,
    CachedProgram,
    CacheSpec,
    add_cache,
)
from parframe.sizes import Size, substitute, symbol, symbols_of


@attrs.frozen
class Transfer:
    """A value that is sent to or received from another rank, along mesh axes."""

    value: Tensor
    peer: int
    axes: tuple[str, ...]


@attrs.frozen
class RankProgram:
    """A rank's program, bound to its sizes and ready to be emitted.

    The inputs of the folded ``graph`` are the rank's parts of the model's inputs, then the values
    it receives, then with a cache `SLOTS`, `CACHED_POSITIONS` and the caches; its outputs are by
    their names. ``receives`` and ``sends`` are in order. ``formulas`` are the rank's symbols that
    are not constants.
    """

    graph: OperatorGraph
    program: Program
    receives: tuple[Transfer, ...]
    sends: tuple[Transfer, ...]
    formulas: Mapping[str, Size]
    cached_program: CachedProgram | None


def build_rank_program(plan: Plan, rank: int, cache: bool) -> RankProgram:
    """Build the program of one rank; with ``cache``, keys and values are cached between steps.

    An error of kind ``run`` reports a program that cannot be run with a cache.
    """
    device = plan.devices[rank]
    program = bind_program(plan.program(rank), device)
    formulas = {name: size for name, size in device.bindings.items() if not isinstance(size, int)}
    cached = add_cache(program, find_sequence_symbols(plan, formulas)) if cache else None
    program = cached.program if cached is not None else program
    receives, sends = (
        tuple(_find_transfers(plan, rank, program, kind.target)) for kind in (RECV, SEND)
    )
    inputs = {part.name: program.tensors[part.name] for part in program.inputs}
    inputs.update((transfer.value.name, transfer.value) for transfer in receives)
    if cached is not None:
        inputs.update(_cache_inputs(program, cached.caches))
    outputs = [part.name for part in program.outputs]
    outputs += [transfer.value.name for transfer in sends]
    forms = _DistributedForms(plan)
    operators = (op for op in program.operators if op.target not in POINT_TO_POINT)
    graph = fold(
        [_remove_tag(forms, rank, operator) for operator in operators],
        program.tensors,
        {name: Input(name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()},
        {part.name: _parameter(plan, program, part) for part in program.parameters},
        {name: name for name in outputs},
    )
    return RankProgram(graph, program, receives, sends, formulas, cached)


def bind_program(program: Program, device: Device) -> Program:
    """Replace the symbols of a program that are constants on a device with their values."""
    numbers = {name: size for name, size in device.bindings.items() if isinstance(size, int)}
    constants = attrs.evolve(device, bindings=numbers)
    return attrs.evolve(
        program,
        operators=tuple(_bind_operator(operator, numbers) for operator in program.operators),
        tensors={name: bound_tensor(t, numbers) for name, t in program.tensors.items()},
        inputs=tuple(bound_part(part, constants) for part in program.inputs),
        parameters=tuple(bound_part(part, constants) for part in program.parameters),
        outputs=tuple(bound_part(part, constants) for part in program.outputs),
    )


def find_groups(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Find all groups of more than one rank that communicate, in an order equal on all ranks."""
    groups = {
        plan.mesh.group(rank, axes)
        for rank in range(plan.mesh.size)
        for axes in {group_axes(op) for op in plan.program(rank).operators if communicates(op)}
    }
    return tuple(sorted(group for group in groups if len(group) > 1))


def find_sequence_symbols(plan: Plan, formulas: Mapping[str, Size]) -> set[str]:
    """Find the symbols that are, or depend on, the length of the sequence."""
    symbols = {
        name
        for given in plan.graph.inputs.values()
        for size, dimension in zip(given.shape, given.axes, strict=False)
        if dimension == "sequence"
        for name in symbols_of(size)
    }
    return symbols | {name for name, size in formulas.items() if symbols_of(size) & symbols}


def _find_transfers(plan: Plan, rank: int, program: Program, target: str) -> Iterator[Transfer]:
    for operator in program.operators:
        if operator.target == target:
            axes = group_axes(operator)
            name = (*operator.inputs, *operator.outputs)[0]
            peer: Any = operator.args["peer"]
            yield Transfer(program.tensors[name], plan.mesh.group(rank, axes)[peer], axes)


def _cache_inputs(program: Program, caches: Mapping[str, CacheSpec]) -> dict[str, Tensor]:
    """Return the inputs that a program with a cache takes in addition."""
    inputs = {name: program.tensors[name] for name in caches}
    if not caches:
        return inputs
    rows = next(iter(caches.values())).shape[0]
    slots = Tensor(SLOTS, (rows, symbol("tokens")), "int64")
    positions = Tensor(CACHED_POSITIONS, (rows, symbol("context")), "int64")
    return {SLOTS: slots, CACHED_POSITIONS: positions, **inputs}


def _parameter(plan: Plan, program: Program, part: Any) -> Parameter:
    whole, tensor = plan.graph.parameters[part.whole], program.tensors[part.name]
    return attrs.evolve(whole, name=part.name, shape=tensor.shape, dtype=tensor.dtype)


class _DistributedForms:
    """Distributed forms of operators on all ranks, by their tags."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.by_rank: dict[int, tuple[Program, dict[Arg, Operator]]] = {}

    def find(self, rank: int, tag: Arg) -> tuple[Program, Operator]:
        """Return a rank's bound program, and its distributed form that has a tag."""
        if rank not in self.by_rank:
            program = bind_program(self.plan.program(rank), self.plan.devices[rank])
            operators = (op for op in program.operators if op.target in DISTRIBUTED_FORMS)
            self.by_rank[rank] = program, {op.args["tag"]: op for op in operators}
        program, by_tag = self.by_rank[rank]
        return program, by_tag[tag]


def _remove_tag(forms: _DistributedForms, rank: int, operator: Operator) -> Operator:
    """Remove the tag of a communication operator, so that equal layers can be folded.

    A distributed form gets the sizes of all ranks of its group as arguments instead.
    """
    if not communicates(operator):
        return operator
    args = {slot: arg for slot, arg in operator.args.items() if slot not in ("tag", "travels")}
    form = DISTRIBUTED_FORMS.get(operator.target)
    if form is not None and "tag" in operator.args:  # one over a key-value cache has no tag
        args.update(_group_arguments(forms, rank, operator, form))
    return attrs.evolve(operator, args=args)


def _group_arguments(
    forms: _DistributedForms, rank: int, operator: Operator, form: DistributedForm
) -> dict[str, Arg]:
    """Return the arguments of a distributed form that list the sizes and values of all ranks."""
    ranks = forms.plan.mesh.group(rank, group_axes(operator))
    peers = [forms.find(peer, operator.args["tag"]) for peer in ranks]
    args: dict[str, Arg] = {}
    for name, (slot, dim) in form.sizes.items():
        if slot in operator.slots:
            sizes = []
            for peer, (program, own) in zip(ranks, peers, strict=True):
                tensor = program.tensors[own.inputs[own.slots.index(slot)]]
                sizes.append(substitute(tensor.shape[dim], forms.plan.devices[peer].bindings))
            args[name] = tuple(sizes)
    for name, slot in form.lists.items():
        args[name] = tuple(own.args[slot] for _, own in peers)
    return args


def _bind_operator(operator: Operator, numbers: Mapping[str, Size]) -> Operator:
    args = {slot: _bind_argument(arg, numbers) for slot, arg in operator.args.items()}
    return attrs.evolve(operator, args=args)


def _bind_argument(arg: Any, numbers: Mapping[str, Size]) -> Any:
    if isinstance(arg, tuple):
        if arg and all(isinstance(part, Span | Join) for part in arg):
            return bound_region(arg, numbers)
        return tuple(_bind_argument(part, numbers) for part in arg)
    return substitute(arg, numbers) if hasattr(arg, "free_symbols") else arg
