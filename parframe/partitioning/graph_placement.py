"""Placement of a whole graph: every block once, and the conversions between calls."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.dims import Dimensions
from parframe.graph import Block, Call, OperatorGraph, Parameter, Tensor
from parframe.layout import leaves
from parframe.partitioning.actions import Action, Compute, Placement
from parframe.partitioning.block_placement import Placer
from parframe.partitioning.block_values import Value, Values
from parframe.partitioning.cuts import Cut
from parframe.partitioning.stage_boundaries import Boundaries, cross_boundary


@attrs.frozen
class PlacedBlock:
    """Block with the actions of devices, and the placements of its inputs and outputs.

    ``outputs`` has the local name and the layout of every output of the block; ``states`` the
    local name of every cached value, as the operator that takes it has it; ``free`` the inputs
    that were the model's own when the block was placed, and so are stored as the block needs.
    """

    block: Block
    actions: tuple[Action, ...]
    given: Mapping[str, Placement]
    outputs: tuple[tuple[str, Placement], ...]
    states: tuple[str, ...]
    free: frozenset[str]


@attrs.frozen
class PlacedCall:
    """Call with the conversions before it, and the local names of its inputs.

    ``leaving`` is what is converted behind it, where a pipeline stage ends that lies on another
    mesh than a later one.
    """

    call: Call
    glue: tuple[Action, ...]
    inputs: Mapping[str, str]
    leaving: tuple[Action, ...] = ()


@attrs.frozen
class PlacedGraph:
    """Whole graph placed.

    ``stored`` is the layout in which every input and parameter of the model is given to devices;
    ``outputs`` the local name and layout of each of the model's outputs; ``gathering`` names, by
    block, operators that gather a split axis and could be written as simpler ones; ``crossing``
    has the local names under which values cross the boundaries between stages.
    """

    blocks: Mapping[str, PlacedBlock]
    calls: tuple[PlacedCall, ...]
    glue: tuple[Action, ...]
    stored: Mapping[str, Placement]
    outputs: tuple[tuple[str, str, Placement], ...]
    unruled: tuple[str, ...]
    gathering: Mapping[str, frozenset[str]]
    crossing: Mapping[str, str] = attrs.field(factory=dict)


def outer_block(graph: OperatorGraph) -> Block:
    """Return the values between calls as a block without operators."""
    tensors: dict[str, Tensor] = dict(graph.tensors)
    operators = tuple(op for block in graph.blocks.values() for op in block.operators[:1])
    return Block("", (), (), operators[:1], (), tensors)


def place_graph(
    graph: OperatorGraph,
    dimensions: Dimensions,
    cuts: tuple[Cut, ...],
    replicate_missing: bool,
    boundaries: Boundaries | None = None,
) -> PlacedGraph:
    """Place every block once, in the order of the calls.

    A weight is stored with the cuts that all its uses have in common. The graph is placed twice:
    the first time finds the cuts that every use wants.
    """
    free = _Free(graph, cuts, dimensions)
    _place(graph, dimensions, cuts, replicate_missing, free, boundaries or {})
    free.settle()
    return _place(graph, dimensions, cuts, replicate_missing, free, boundaries or {})


class _Free:
    """Inputs and weights of the model, which devices may be given in any placement."""

    def __init__(self, graph: OperatorGraph, cuts: tuple[Cut, ...], dimensions: Dimensions) -> None:
        self.parents: dict[str, str] = {}
        self.wishes: dict[str, set[frozenset[int]]] = {}
        self.fixed: dict[str, frozenset[int]] | None = None
        self.barred: dict[str, frozenset[int]] = {}
        symbolic = frozenset(
            cut.rank for cut in cuts if not all(isinstance(size, int) for size in cut.sizes)
        )
        for name, tensor in graph.parameters.items():
            ours = {leaf.dim for axis in dimensions.outer[name] for leaf in leaves(axis)}
            if isinstance(tensor, Parameter) and any(
                ours & set(cut.chain) for cut in cuts if cut.rank in symbolic
            ):
                self.barred[name] = symbolic
        for call in graph.calls:
            block = graph.blocks[call.block]
            for own, name in (
                *zip(block.inputs, call.inputs, strict=True),
                *zip(block.parameters, call.parameters, strict=True),
            ):
                if name in graph.inputs or name in graph.parameters:
                    self._union(f"{block.name}\0{own}", name)

    def _find(self, name: str) -> str:
        while name in self.parents:
            name = self.parents[name]
        return name

    def _union(self, left: str, right: str) -> None:
        left, right = self._find(left), self._find(right)
        if left != right:
            self.parents[right] = left

    def wish(self, name: str, cuts: frozenset[int]) -> frozenset[int]:
        """Return the cuts that a value is stored with, for a use that wants some cuts."""
        if self.fixed is not None:
            return self.stored(name)
        self.wishes.setdefault(self._find(name), set()).add(cuts)
        return cuts

    def stored(self, name: str) -> frozenset[int]:
        """Return the cuts that a value is stored with; none before ``settle``."""
        return (self.fixed or {}).get(self._find(name), frozenset())

    def settle(self) -> None:
        """Store every value with the cuts that all its uses have in common."""
        barred: dict[str, frozenset[int]] = {}
        for name, cuts in self.barred.items():
            root = self._find(name)
            barred[root] = barred.get(root, frozenset()) | cuts
        self.fixed = {
            root: frozenset.intersection(*wishes) - barred.get(root, frozenset())
            for root, wishes in self.wishes.items()
        }


def _place(
    graph: OperatorGraph,
    dimensions: Dimensions,
    cuts: tuple[Cut, ...],
    replicate_missing: bool,
    free: _Free,
    boundaries: Boundaries,
) -> PlacedGraph:
    top = Values(dimensions.outer, cuts, free.wish, mark="between.")
    for name in (*graph.inputs, *graph.parameters):
        top[name] = Value(free=True)
    placed: dict[str, PlacedBlock] = {}
    calls: list[PlacedCall] = []
    unruled: list[str] = []
    gathering: dict[str, frozenset[str]] = {}
    ends = dimensions.input_dims
    lasting = _lasting(graph, cuts, ends)
    crossing: dict[str, str] = {}
    for number, call in enumerate(graph.calls):
        boundary = cross_boundary(top, graph, boundaries, number)
        if boundary is not None:
            calls[-1] = attrs.evolve(calls[-1], leaving=boundary.leaving)
            crossing.update(boundary.names)
        block = graph.blocks[call.block]
        bound = dict(zip(block.inputs, call.inputs, strict=True))
        if block.name not in placed:
            placed[block.name], placer = _place_block(
                block, bound, top, dimensions, cuts, free, replicate_missing, lasting[block.name]
            )
            unruled.extend(operator.module or operator.name for operator in placer.unruled)
            if placer.gathering:
                gathering[block.name] = frozenset(placer.gathering)
        done = placed[block.name]
        before = len(top.actions) - (len(boundary.entering) if boundary is not None else 0)
        names = {
            own: name
            if own in done.free and top[name].free
            else top.need(name, done.given[own].cuts)
            for own, name in bound.items()
        }
        calls.append(PlacedCall(call, tuple(top.actions[before:]), names))
        for (local, layout), own, name in zip(
            done.outputs, block.outputs, call.outputs, strict=True
        ):
            top[name] = Value(variants={layout: f"{name}{local[len(own) :]}"})
    before = len(top.actions)
    outputs = tuple(_returned(top, name, ends) for name in graph.output_names)
    stored = {
        name: Placement(top.restrict(name, free.stored(name)))
        for name in (*graph.inputs, *graph.parameters)
    }
    return PlacedGraph(
        blocks=placed,
        calls=tuple(calls),
        glue=tuple(top.actions[before:]),
        stored=stored,
        outputs=outputs,
        unruled=tuple(unruled),
        gathering=gathering,
        crossing=crossing,
    )


def _returned(top: Values, name: str, ends: frozenset[str]) -> tuple[str, str, Placement]:
    """Return an output of the model with its local name and placement, split only like inputs."""
    have = top.layouts(name)
    cuts = have[0].cuts if have else ()
    kept = frozenset(cut for cut in cuts if set(top.cuts[cut].chain) <= ends)
    return name, top.need(name, kept), Placement(top.restrict(name, kept))


def _lasting(
    graph: OperatorGraph, cuts: tuple[Cut, ...], ends: frozenset[str]
) -> dict[str, dict[str, frozenset[int]]]:
    """Return the cuts that every output of a block may keep.

    These are all cuts. A value that the model returns and no call reads keeps only cuts of the
    model's inputs.
    """
    every = frozenset(cut.rank for cut in cuts)
    kept = frozenset(cut.rank for cut in cuts if set(cut.chain) <= ends)
    returned = set(graph.output_names) - {name for call in graph.calls for name in call.inputs}
    result = {
        block.name: dict.fromkeys(block.outputs, frozenset[int]())
        for block in graph.blocks.values()
    }
    for call in graph.calls:
        for own, name in zip(graph.blocks[call.block].outputs, call.outputs, strict=True):
            result[call.block][own] |= kept if name in returned else every
    return result


def _place_block(
    block: Block,
    bound: Mapping[str, str],
    top: Values,
    dimensions: Dimensions,
    cuts: tuple[Cut, ...],
    free: _Free,
    replicate_missing: bool,
    may: Mapping[str, frozenset[int]],
) -> tuple[PlacedBlock, Placer]:
    def wish(own: str, wanted: frozenset[int]) -> frozenset[int]:
        return free.wish(f"{block.name}\0{own}", wanted)

    placer = Placer(
        block,
        dimensions.tensor_dims[block.name],
        dimensions.bound[block.name],
        cuts,
        wish,
        replicate_missing,
    )
    given: dict[str, Placement] = {}
    inputs: dict[str, Value] = {name: Value(free=True) for name in block.parameters}
    for own, name in bound.items():
        if top[name].free:
            inputs[own] = Value(free=True)
        else:
            given[own] = top.layout_of(name)
            inputs[own] = Value(variants={given[own]: own})
    placer.run(inputs, may)
    owned = frozenset(own for own in bound if own not in given)
    for own in (*block.parameters, *sorted(owned)):
        stored = free.stored(f"{block.name}\0{own}")
        given[own] = Placement(placer.values.restrict(own, stored))
    outputs = tuple(
        (placer.values[own].variants[layout], layout)
        for own in block.outputs
        for layout in [placer.values.layout_of(own)]
    )
    actions = tuple(placer.values.actions)
    states = tuple(_cached(state.value, actions) for state in block.states)
    return PlacedBlock(block, actions, given, outputs, states, owned), placer


def _cached(value: str, actions: tuple[Action, ...]) -> str:
    """Return the local name of a value in the last operator that reads it."""
    taken = [
        action.inputs[action.operator.inputs.index(value)]
        for action in actions
        if isinstance(action, Compute) and not action.bare and value in action.operator.inputs
    ]
    return taken[-1] if taken else value
