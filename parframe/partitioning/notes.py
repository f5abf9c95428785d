"""Notes on a plan: replicated compute, replicated weights, and gathered values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from parframe.dims import Dimensions
from parframe.graph import Call, OperatorGraph
from parframe.layout import dims_of
from parframe.mesh import Mesh
from parframe.partitioning.actions import Compute, Convert
from parframe.partitioning.cuts import Cut
from parframe.partitioning.graph_placement import PlacedBlock, PlacedGraph
from parframe.plan import Note
from parframe.sizes import simplify

_GATHERS = {"all_gather": "gathered", "all_to_all": "resharded"}


def notes_of(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placed: PlacedGraph,
    cuts: tuple[Cut, ...],
    mesh: Mesh,
    calls: Iterable[Call] | None = None,
) -> tuple[Note, ...]:
    """List replicated compute, replicated weights and gathered values, with bytes.

    An axis that splits only what the model is given (a batch over replicas) repeats no compute;
    weights are whole along it by design and are not listed. Where not all of the graph's calls
    are on this mesh, ``calls`` are those that are.
    """
    calls = graph.calls if calls is None else tuple(calls)
    taken = {name for call in calls for name in (*call.inputs, *call.parameters)}
    axes = _weight_axes(graph, dimensions, cuts, mesh)
    notes = [note for note in _weights(graph, placed, cuts, axes) if note.where in taken]
    notes.extend(
        Note("no rule", where, "computed whole on every device, its inputs gathered", 0)
        for where in placed.unruled
    )
    for name, count in Counter(call.block for call in calls).items():
        notes.extend(_compute(placed.blocks[name], cuts, axes, count))
        notes.extend(_gathers(placed.blocks[name], count))
    return tuple(notes)


def _weight_axes(
    graph: OperatorGraph, dimensions: Dimensions, cuts: tuple[Cut, ...], mesh: Mesh
) -> tuple[str, ...]:
    """Return the mesh axes that split weights."""
    borne = {
        dim for name in graph.parameters for axis in dimensions.outer[name] for dim in dims_of(axis)
    }
    return tuple(
        axis
        for axis in mesh.names
        if any(axis in cut.axes and borne & set(cut.chain) for cut in cuts)
    )


def _weights(
    graph: OperatorGraph, placed: PlacedGraph, cuts: tuple[Cut, ...], axes: tuple[str, ...]
) -> Iterator[Note]:
    for name, tensor in graph.parameters.items():
        whole = _whole_axes(placed.stored[name].cuts, cuts, axes)
        if whole and len(tensor.shape) > 1:
            yield Note("whole weight", name, f"stored whole along {whole}", simplify(tensor.bytes))


def _whole_axes(own: Iterable[int], cuts: tuple[Cut, ...], axes: tuple[str, ...]) -> str:
    """Return the mesh axes that none of some cuts is along, as text."""
    split = {axis for c in own for axis in cuts[c].axes}
    return ", ".join(axis for axis in axes if axis not in split)


def _compute(
    block: PlacedBlock, cuts: tuple[Cut, ...], axes: tuple[str, ...], uses: int
) -> Iterator[Note]:
    for action in block.actions:
        if not isinstance(action, Compute) or action.bound.signature is None:
            continue
        if action.bound.signature.moves or not action.bound.site.inputs:
            continue
        whole = _whole_axes(action.cuts, cuts, axes)
        if whole:
            operator = action.operator
            size = sum(tensor.bytes for tensor in action.bound.site.outputs) * uses
            times = f", {uses} times" if uses > 1 else ""
            what = f"{operator.target} on every device along {whole}{times}"
            where = operator.module or operator.name
            yield Note("replicated compute", where, what, simplify(size))


def _gathers(block: PlacedBlock, uses: int) -> Iterator[Note]:
    for action in block.actions:
        if isinstance(action, Convert) and action.kind in _GATHERS:
            tensor = block.block.tensors[action.value]
            near = block.block.operators[action.index]
            times = f", {uses} times" if uses > 1 else ""
            weight = "weight " if action.value in block.block.parameters else ""
            kind = f"{_GATHERS[action.kind]} {weight}".strip()
            size = simplify(tensor.bytes * uses)
            yield Note(kind, near.module or near.name, f"{action.value}{times}", size)
