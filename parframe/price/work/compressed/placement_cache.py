"""A model's short graph placed for composites: what they have in common is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs

from parframe.dims import Dimensions, name_dimensions
from parframe.dims.halves import halve_dimensions
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.partitioning.conflicting_splits import check_splits
from parframe.partitioning.cuts import Cut, find_cuts
from parframe.partitioning.decomposition import expand
from parframe.partitioning.graph_placement import PlacedGraph, place_graph
from parframe.partitioning.step_costs import works_of
from parframe.rules import Rule
from parframe.strategy import Placing


@attrs.frozen
class CachedPlacement:
    """A graph placed on a mesh; the form is equal where all but degrees and sizes is."""

    dimensions: Dimensions
    cuts: tuple[Cut, ...]
    placed: PlacedGraph
    graph: OperatorGraph
    form: object


class PlacementCache:
    """Places graphs, each way of placing one once."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.known: dict[tuple[int, tuple[str, ...]], Dimensions] = {}
        self.simpler: dict[tuple[int, object], OperatorGraph] = {}
        self.placed: dict[object, PlacedGraph] = {}
        self.worked: dict[int, dict[str, float]] = {}

    def place(
        self, written: OperatorGraph, placing: Placing, replicate: bool
    ) -> CachedPlacement | None:
        """The graph placed, as a plan places the whole; None where equal layers differ then."""
        mesh = placing.mesh
        while True:
            dimensions = self.named(written, placing.zigzag)
            uses = Counter(call.block for call in written.calls)
            if any(uses[block] > 1 for block in dimensions.inconsistent_blocks):
                return None
            cuts = find_cuts(dimensions, placing.within(mesh))
            check_splits(written, dimensions, placing.within(mesh), cuts)
            order = sorted({cut.priority for cut in cuts})
            forms = tuple(_form(cut, order) for cut in cuts)
            form = (id(written), replicate, placing.zigzag, forms)
            if form not in self.placed:
                self.placed[form] = place_graph(written, dimensions, cuts, replicate)
            placed = self.placed[form]
            key = (
                id(written),
                tuple(sorted((k, tuple(sorted(v))) for k, v in placed.gathering.items())),
            )
            if key not in self.simpler:
                self.simpler[key] = expand(written, dimensions.bound, placed.gathering)
            if self.simpler[key] is written:
                return CachedPlacement(dimensions, cuts, placed, written, form)
            written = self.simpler[key]

    def named(self, graph: OperatorGraph, mirrored: tuple[str, ...]) -> Dimensions:
        """The named dimensions of a graph."""
        if (id(graph), ()) not in self.known:
            self.known[id(graph), ()] = name_dimensions(graph, self.rules)
        if (id(graph), mirrored) not in self.known:
            self.known[id(graph), mirrored] = halve_dimensions(self.known[id(graph), ()], mirrored)
        return self.known[id(graph), mirrored]

    def works(self, placed: CachedPlacement) -> dict[str, float]:
        """The work of every operator of a placed graph."""
        key = id(placed.dimensions)
        if key not in self.worked:
            self.worked[key] = works_of(placed.graph, placed.dimensions)
        return self.worked[key]


def _form(cut: Cut, order: list[tuple[int, ...]]) -> object:
    """What of a cut decides how operators are placed; the degree does not beyond this."""
    return (
        cut.rank,
        order.index(cut.priority),
        cut.axes,
        cut.chain,
        all(isinstance(size, int) for size in cut.sizes),
        cut.uneven,
        cut.tiling,
        cut.exchanges,
        cut.mirrored,
        None if cut.outer is None else _form(cut.outer, order),
    )


def kinds(cuts: tuple[Cut, ...], mesh: Mesh, axis: tuple[str, ...]) -> list[int]:
    """A rank of the first stage for every shape of device, the first of its shape."""
    unequal = {cut.rank: min(cut.shares) != max(cut.shares) for cut in cuts}
    telling = [cut for cut in cuts if unequal[cut.rank] or not _even(cut)]
    known: dict[tuple[int, ...], object] = {}

    def lengths(cut: Cut, rank: int) -> object:
        place = (cut.rank, *(mesh.index(rank, one.axes) for one in _nest(cut)))
        if place not in known:
            found = [piece.length for piece in cut.piece(mesh, rank).values()]
            shown = str if unequal[cut.rank] else lambda length: isinstance(length, int) and length
            known[place] = tuple(map(shown, found))
        return known[place]

    firsts: dict[object, int] = {}
    for rank in range(mesh.size) if telling else (0,):
        if not axis or mesh.index(rank, axis) == 0:
            firsts.setdefault(tuple(lengths(cut, rank) for cut in telling), rank)
    return list(firsts.values())


def _nest(cut: Cut) -> Iterator[Cut]:
    """A cut and those that it lies within."""
    yield cut
    if cut.outer is not None:
        yield from _nest(cut.outer)


def _even(cut: Cut) -> bool:
    """Whether every device of a cut has as much, where that is a number."""
    size: int = 1
    for one in cut.sizes:
        if not isinstance(one, int):
            return cut.outer is None or _even(cut.outer)
        size *= one
        if size % _degree(cut) == 0:
            return True
        if size < _degree(cut) and _degree(cut) % size:
            return False
        if size > _degree(cut):
            return False
    return size % _degree(cut) == 0


def _degree(cut: Cut) -> int:
    return cut.degree * (_degree(cut.outer) if cut.outer is not None else 1)
