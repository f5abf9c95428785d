"""The work of a composite without its plan: equal layers once, one device of each stage.

The graph is shortened to a few of its equal layers, placed as a plan places it, and written out
for one device. Where stages begin is found as a plan finds it, from the costs of all steps. So the
work is that of the plan, whatever the number of devices and layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from parframe.checking.samples import symbols_of_graph
from parframe.dims import Dimensions
from parframe.dims import name as name_dimensions
from parframe.dims.halves import halved
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh, StagedMesh
from parframe.partitioning import partition_placing
from parframe.partitioning.blocks import PlacedGraph, place_graph
from parframe.partitioning.contradictions import check_splits
from parframe.partitioning.costs import works_of
from parframe.partitioning.cuts import Cut, bindings_of, find_cuts, shape_of
from parframe.partitioning.expand import expand
from parframe.partitioning.programs import stage_axis
from parframe.partitioning.sequence import Sequence, sequence
from parframe.price.extents import Extents
from parframe.price.listing import Listing
from parframe.price.reading import check_batch, stage_of, whole, work_of
from parframe.price.repetition import Short, shorten
from parframe.price.stages import Staged, Steps, stage_steps
from parframe.price.work import Stage, Work
from parframe.rules import Rule
from parframe.strategy import Placing

if TYPE_CHECKING:
    from parframe.spec import Spec


def work_of_composite(graph: OperatorGraph, by: str | Spec) -> Work:
    """What a step asks of the devices of a composite, as `work_of` tells it of the plan.

    Parameters
    ----------
    graph
        The model.
    by
        A composite such as ``"TP2PP2"``, or a specification.

    Raises
    ------
    ParframeError
        As `parframe.partition` does, if the model cannot be split so.
    """
    from parframe.spec import Spec

    spec = by if isinstance(by, Spec) else Spec(parallel=by)
    return reader(graph, spec.rules()).work(spec.placing(), spec.on_missing_rule == "replicate")


def reader(graph: OperatorGraph, rules: Iterable[Rule] = ()) -> Reader:
    """The reader of a model, the same for the same model."""
    return _reader(_Same(graph), tuple(rules))


@attrs.frozen(eq=False)
class _Same:
    """A graph that is compared by identity."""

    graph: OperatorGraph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.graph is self.graph

    def __hash__(self) -> int:
        return id(self.graph)


@lru_cache(maxsize=16)
def _reader(same: _Same, rules: tuple[Rule, ...]) -> Reader:
    return Reader(same.graph, rules)


@attrs.frozen
class _Placed:
    """The short graph placed on a mesh."""

    dimensions: Dimensions
    cuts: tuple[Cut, ...]
    placed: PlacedGraph
    graph: OperatorGraph
    form: object


class Reader:
    """Reads the work of composites of one model; what does not depend on them is done once."""

    def __init__(self, graph: OperatorGraph, rules: tuple[Rule, ...]) -> None:
        self.graph = graph
        self.rules = rules
        self.symbols = symbols_of_graph(graph)
        check_batch(graph, self.symbols)
        self.short = shorten(graph)
        self.named: dict[tuple[int, tuple[str, ...]], Dimensions] = {}
        self.works: dict[int, dict[str, float]] = {}
        self.simpler: dict[tuple[int, object], OperatorGraph] = {}
        self.placed: dict[object, PlacedGraph] = {}
        self.laid: dict[object, Sequence] = {}
        self.steps: dict[int, Steps] = {}

    def dimensions(self) -> Dimensions:
        """The named dimensions of the model, as its shortened graph has them."""
        return self._named(self.short.graph if self.short else self.graph, ())

    def work(self, placing: Placing, replicate: bool = False) -> Work:
        """The work of a placing."""
        plain = not isinstance(placing.mesh, StagedMesh) and not any(
            isinstance(cut, str) for cut in placing.cuts
        )
        placed = self._place(self.short, placing, replicate) if plain and self.short else None
        if self.short is None or placed is None:
            return self._slow(placing, replicate)
        mesh = placing.mesh
        axis = stage_axis(placing)
        laid = {
            rank: self._sequence(placed, mesh, rank) for rank in _kinds(placed.cuts, mesh, axis)
        }
        model = next(iter(laid.values()))
        if id(model) not in self.steps:
            short = attrs.evolve(self.short, graph=placed.graph)
            self.steps[id(model)] = Steps(self.graph, short, placed.placed, model)
        staged = stage_steps(self.steps[id(model)], placing, axis, self._works(placed))
        if staged is None:
            return self._slow(placing, replicate)
        stages = []
        known: dict[object, tuple[int, Stage]] = {}
        for number in range(staged.count):
            at = mesh.group(0, axis)[number] if axis else 0
            key = staged.kind(number)
            if key not in known:
                known[key] = at, self._stage(staged, number, laid, placed, mesh, axis)
            there, stage = known[key]
            stages.append(_moved(stage, at - there))
        return whole(stages, mesh.size, len(self.graph.layers))

    def _slow(self, placing: Placing, replicate: bool) -> Work:
        missing = "replicate" if replicate else "error"
        return work_of(partition_placing(self.graph, placing, self.rules, missing))

    def _place(self, short: Short, placing: Placing, replicate: bool) -> _Placed | None:
        """The short graph placed, as a plan places the whole; None where layers differ then."""
        written, mesh = short.graph, placing.mesh
        while True:
            dimensions = self._named(written, placing.mirrored)
            uses = Counter(call.block for call in written.calls)
            if any(uses[block] > 1 for block in dimensions.torn):
                return None
            cuts = find_cuts(dimensions, placing.within(mesh))
            check_splits(written, dimensions, placing.within(mesh), cuts)
            form = (id(written), replicate, placing.mirrored, tuple(map(_form, cuts)))
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
                return _Placed(dimensions, cuts, placed, written, form)
            written = self.simpler[key]

    def _sequence(self, placed: _Placed, mesh: Mesh, rank: int) -> Sequence:
        """What the device of a rank would do of the short graph in one stage.

        It is the same for all degrees that leave the shape: of what is split symbolically, only
        where the parts of others lie differs, and nothing is read of that.
        """
        shape = shape_of(placed.cuts, mesh, rank)
        key = (placed.form, tuple(tuple(pieces.items()) for pieces in shape.pieces))
        if key not in self.laid:
            self.laid[key] = sequence(
                placed.graph, placed.dimensions, placed.placed, placed.cuts, shape
            )
        return self.laid[key]

    def _named(self, graph: OperatorGraph, mirrored: tuple[str, ...]) -> Dimensions:
        if (id(graph), ()) not in self.named:
            self.named[id(graph), ()] = name_dimensions(graph, self.rules)
        if (id(graph), mirrored) not in self.named:
            self.named[id(graph), mirrored] = halved(self.named[id(graph), ()], mirrored)
        return self.named[id(graph), mirrored]

    def _works(self, placed: _Placed) -> dict[str, float]:
        key = id(placed.dimensions)
        if key not in self.works:
            self.works[key] = works_of(placed.graph, placed.dimensions)
        return self.works[key]

    def _stage(
        self,
        staged: Staged,
        number: int,
        laid: dict[int, Sequence],
        placed: _Placed,
        mesh: Mesh,
        axis: tuple[str, ...],
    ) -> Stage:
        """The work of the busiest device of a stage."""
        best: tuple[float, Stage] | None = None
        for first, model in laid.items():
            rank = mesh.group(first, axis)[number] if axis else first
            found = stage_of(self._listing(staged, number, rank, model, placed, mesh, axis))
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            raise ParframeError("internal", f"stage {number}", "has no device", "report it")
        return best[1]

    def _listing(
        self,
        staged: Staged,
        number: int,
        rank: int,
        model: Sequence,
        placed: _Placed,
        mesh: Mesh,
        axis: tuple[str, ...],
    ) -> Listing:
        steps = staged.steps[number]
        pairs = [(op, count) for step, count in steps for op in model.steps[step].operators]
        used = {name for op, _ in pairs for name in op.inputs}
        group = tuple(mesh.group(rank, axis)) if axis else (rank,)
        sent = tuple(
            (value, kind, group if kind == "broadcast" else (rank, group[to]))
            for value, kind, to in staged.sent[number]
        )

        def members(axes: tuple[str, ...]) -> tuple[int, ...]:
            return tuple(mesh.group(rank, axes))

        return Listing(
            operators=tuple(op for op, _ in pairs),
            counts=tuple(count for _, count in pairs),
            tensors=model.tensors,
            parameters={k: v for k, v in placed.graph.parameters.items() if k in used},
            outputs=staged.outputs[number],
            sent=sent,
            extents=Extents(self.symbols, bindings_of(placed.cuts, mesh, rank), mesh.size),
            members=members,
        )


def _form(cut: Cut) -> object:
    """What of a cut decides how operators are placed; the degree does not beyond this."""
    return (
        cut.rank,
        cut.priority,
        cut.axes,
        cut.chain,
        all(isinstance(size, int) for size in cut.sizes),
        cut.uneven,
        cut.tiling,
        cut.exchanges,
        cut.mirrored,
        None if cut.outer is None else _form(cut.outer),
    )


def _moved(stage: Stage, by: int) -> Stage:
    """The work of a like stage: its ranks are others, at the same distance from each other."""
    if by == 0:
        return stage
    exchanges = tuple(
        attrs.evolve(exchange, members=tuple(member + by for member in exchange.members))
        for exchange in stage.exchanges
    )
    return attrs.evolve(stage, exchanges=exchanges)


def _kinds(cuts: tuple[Cut, ...], mesh: Mesh, axis: tuple[str, ...]) -> list[int]:
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
