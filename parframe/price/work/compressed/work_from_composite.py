"""The work of a composite without its plan: equal layers once, one device of each stage.

The graph is shortened to a few of its equal layers, placed as a plan places it, and written out
for one device. Where stages begin is found as a plan finds it, from the costs of all steps. So the
work is that of the plan, whatever the number of devices and layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from parframe.checking.samples import graph_symbols
from parframe.dims import Dimensions
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh, StagedMesh
from parframe.partitioning import partition_placing
from parframe.partitioning.cuts import bindings_of
from parframe.partitioning.regular_plan import stage_axis
from parframe.price.work.compressed.device_steps import DeviceOutline, DeviceOutlines
from parframe.price.work.compressed.placement_cache import CachedPlacement, PlacementCache, kinds
from parframe.price.work.compressed.repeated_layers import shorten
from parframe.price.work.compressed.stage_steps import StageSteps, StepGraph, stage_steps
from parframe.price.work.operator_list import OperatorList
from parframe.price.work.stage_work import combine_stages, stage_work
from parframe.price.work.tensor_scaling import TensorScalings
from parframe.price.work.work import Stage, Work
from parframe.price.work.work_from_plan import require_batch, work_from_plan
from parframe.rules import Rule
from parframe.strategy import Placing

if TYPE_CHECKING:
    from parframe.spec import Spec


def work_from_composite(graph: OperatorGraph, by: str | Spec) -> Work:
    """What a step asks of the devices of a composite, as `work_from_plan` tells it of the plan.

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


class Reader:
    """Reads the work of composites of one model; what does not depend on them is done once."""

    def __init__(self, graph: OperatorGraph, rules: tuple[Rule, ...]) -> None:
        self.graph = graph
        self.rules = rules
        self.symbols = graph_symbols(graph)
        require_batch(graph, self.symbols)
        self.short = shorten(graph)
        self.placings = PlacementCache(rules)
        self.outlines = DeviceOutlines()
        self.steps: dict[int, StepGraph] = {}

    def dimensions(self) -> Dimensions:
        """The named dimensions of the model, as its shortened graph has them."""
        return self.placings.named(self.short.graph if self.short else self.graph, ())

    def work(self, placing: Placing, replicate: bool = False) -> Work:
        """The work of a placing."""
        plain = not isinstance(placing.mesh, StagedMesh) and not any(
            isinstance(cut, str) for cut in placing.stage_starts
        )
        placed = None
        if plain and self.short is not None:
            placed = self.placings.place(self.short.graph, placing, replicate)
        if self.short is None or placed is None:
            return self._slow(placing, replicate)
        mesh, axis = placing.mesh, stage_axis(placing)
        laid = {rank: self._laid(placed, mesh, rank) for rank in kinds(placed.cuts, mesh, axis)}
        model = next(iter(laid.values())).drawn
        if id(model.frame) not in self.steps:
            short = attrs.evolve(self.short, graph=placed.graph)
            self.steps[id(model.frame)] = StepGraph(self.graph, short, placed.placed, model.steps)
        steps = self.steps[id(model.frame)]
        staged = stage_steps(steps, model, placing, axis, self.placings.works(placed))
        if staged is None:
            return self._slow(placing, replicate)
        ranks = tuple(mesh.group(0, axis)) if axis else (0,)
        stages = []
        known: dict[object, tuple[int, Stage]] = {}
        for number, at in enumerate(ranks):
            key = staged.kind(number)
            if key not in known:
                known[key] = at, self._stage(staged, number, laid, ranks)
            there, stage = known[key]
            stages.append(_moved(stage, at - there))
        return combine_stages(stages, mesh.size, len(self.graph.layers))

    def _laid(self, placed: CachedPlacement, mesh: Mesh, rank: int) -> _Laid:
        bindings = bindings_of(placed.cuts, mesh, rank)
        extents = TensorScalings(self.symbols, bindings, mesh.size)
        return _Laid(self.outlines.of(placed, mesh, rank), extents, mesh)

    def _slow(self, placing: Placing, replicate: bool) -> Work:
        missing = "replicate" if replicate else "error"
        return work_from_plan(partition_placing(self.graph, placing, self.rules, missing))

    def _stage(
        self, staged: StageSteps, number: int, laid: Mapping[int, _Laid], ranks: tuple[int, ...]
    ) -> Stage:
        """The work of the busiest device of a stage; ``ranks`` are at one place in all stages."""
        best: tuple[float, Stage] | None = None
        for first, own in laid.items():
            listing = own.listing(staged, number, tuple(first + rank for rank in ranks))
            found = stage_work(listing, own.drawn.frame.structure(listing))
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            raise ParframeError("internal", f"stage {number}", "has no device", "report it")
        return best[1]


@attrs.frozen
class _Laid:
    """What devices of one shape do, and the sizes there."""

    drawn: DeviceOutline
    extents: TensorScalings
    mesh: Mesh

    def listing(self, staged: StageSteps, number: int, ranks: tuple[int, ...]) -> OperatorList:
        """What a device does in a stage, which communicates along these ranks with others."""
        rank = ranks[number]
        portion = self.drawn.frame.portion(tuple(step for step, _ in staged.steps[number]))
        counts = zip(portion.lengths, staged.steps[number], strict=True)
        sent = tuple(
            (value, kind, ranks if kind == "broadcast" else (rank, ranks[to]))
            for value, kind, to in staged.sent[number]
        )

        def members(axes: tuple[str, ...]) -> tuple[int, ...]:
            return tuple(self.mesh.group(rank, axes))

        return OperatorList(
            operators=portion.operators,
            counts=tuple(count for length, (_, count) in counts for _ in range(length)),
            tensors=self.drawn.tensors,
            parameters=portion.parameters,
            outputs=staged.outputs[number],
            sent=sent,
            extents=self.extents,
            members=members,
        )


def _moved(stage: Stage, by: int) -> Stage:
    """The work of a like stage: its ranks are others, at the same distance from each other."""
    if by == 0:
        return stage
    exchanges = tuple(
        attrs.evolve(exchange, ranks=tuple(member + by for member in exchange.ranks))
        for exchange in stage.communication
    )
    return attrs.evolve(stage, communication=exchanges)
