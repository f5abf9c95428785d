"""Placements of a model's shortened graph, with what composites have in common done once."""

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
    """Graph placed on a mesh. Placements that differ in degrees and sizes only have one form."""

    dimensions: Dimensions
    cuts: tuple[Cut, ...]
    placed: PlacedGraph
    graph: OperatorGraph
    form: object


class PlacementCache:
    """Placements of graphs, one for each form of cuts."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.known: dict[tuple[int, tuple[str, ...]], Dimensions] = {}
        self.simpler: dict[tuple[int, object], OperatorGraph] = {}
        self.placed: dict[object, PlacedGraph] = {}
        self.worked: dict[int, dict[str, float]] = {}

    def place(
        self, written: OperatorGraph, placing: Placing, replicate: bool
    ) -> CachedPlacement | None:
        """Place a graph as a plan does; return None if equal layers are then placed differently.

        Operators without a rule are replicated if ``replicate`` is true.
        """
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
            gathering = sorted((k, tuple(sorted(v))) for k, v in placed.gathering.items())
            key = id(written), tuple(gathering)
            if key not in self.simpler:
                self.simpler[key] = expand(written, dimensions.bound, placed.gathering)
            if self.simpler[key] is written:
                return CachedPlacement(dimensions, cuts, placed, written, form)
            written = self.simpler[key]

    def named(self, graph: OperatorGraph, mirrored: tuple[str, ...]) -> Dimensions:
        """Return the named dimensions of a graph."""
        if (id(graph), ()) not in self.known:
            self.known[id(graph), ()] = name_dimensions(graph, self.rules)
        if (id(graph), mirrored) not in self.known:
            self.known[id(graph), mirrored] = halve_dimensions(self.known[id(graph), ()], mirrored)
        return self.known[id(graph), mirrored]

    def works(self, placed: CachedPlacement) -> dict[str, float]:
        """Return the multiplications of every operator of a placed graph."""
        key = id(placed.dimensions)
        if key not in self.worked:
            self.worked[key] = works_of(placed.graph, placed.dimensions)
        return self.worked[key]


def _form(cut: Cut, order: list[tuple[int, ...]]) -> object:
    """Return the properties of a cut that determine how operators are placed, without degrees."""
    return (
        cut.rank,
        order.index(cut.priority),
        cut.axes,
        cut.chain,
        all(isinstance(size, int) for size in cut.sizes),
        cut.uneven,
        cut.tiling,
        cut.distributed_forms,
        cut.mirrored,
        None if cut.outer is None else _form(cut.outer, order),
    )


def distinct_ranks(cuts: tuple[Cut, ...], mesh: Mesh, axis: tuple[str, ...]) -> list[int]:
    """Return the first rank of each device shape in the first stage; stages lie along ``axis``."""
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
    """Yield a cut and the cuts around it."""
    yield cut
    if cut.outer is not None:
        yield from _nest(cut.outer)


def _even(cut: Cut) -> bool:
    """Return whether all devices of a cut have equally long parts, as far as sizes are numbers."""
    size: int = 1
    for one in cut.sizes:
        if not isinstance(one, int):
            return cut.outer is None or _even(cut.outer)
        size *= one
        if size % _degree(cut) == 0:
            return True
        if size > _degree(cut) or _degree(cut) % size:
            return False
    return size % _degree(cut) == 0


def _degree(cut: Cut) -> int:
    return cut.degree * (_degree(cut.outer) if cut.outer is not None else 1)
