"""Work of a composite without its plan: one device of each stage, equal layers once.

The graph is shortened to a few of its equal layers, placed as a plan places it, and written out for
one device. Stages begin where those of a plan do, by the costs of all steps. The work is equal to
the plan's, and takes the same time for any number of devices and layers.
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
from parframe.price.work.compressed.device_steps import DeviceSteps, DeviceStepsCache
from parframe.price.work.compressed.placement_cache import (
    CachedPlacement,
    PlacementCache,
    distinct_ranks,
)
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
    """Return the work of a composite, equal to what `work_from_plan` returns for its plan.

    Raises
    ------
    ParframeError
        As `parframe.partition` does, if the model cannot be split this way.
    """
    from parframe.spec import Spec

    spec = by if isinstance(by, Spec) else Spec(parallel=by)
    reader = work_reader(graph, spec.rules())
    return reader.work(spec.placing(), spec.on_missing_rule == "replicate")


def work_reader(graph: OperatorGraph, rules: Iterable[Rule] = ()) -> WorkReader:
    """Return the reader of a model, always the same object for one graph and rules."""
    return _work_reader(_GraphIdentity(graph), tuple(rules))


@attrs.frozen(eq=False)
class _GraphIdentity:
    """Graph that is compared by identity."""

    graph: OperatorGraph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _GraphIdentity) and other.graph is self.graph

    def __hash__(self) -> int:
        return id(self.graph)


@lru_cache(maxsize=16)
def _work_reader(identity: _GraphIdentity, rules: tuple[Rule, ...]) -> WorkReader:
    return WorkReader(identity.graph, rules)


class WorkReader:
    """Reader of the work of one model's composites, which does once what they have in common."""

    def __init__(self, graph: OperatorGraph, rules: tuple[Rule, ...]) -> None:
        self.graph = graph
        self.rules = rules
        self.symbols = graph_symbols(graph)
        require_batch(graph, self.symbols)
        self.short = shorten(graph)
        self.placements = PlacementCache(rules)
        self.device_steps = DeviceStepsCache()
        self.step_graphs: dict[int, StepGraph] = {}

    def dimensions(self) -> Dimensions:
        """Return the named dimensions of the model, as its shortened graph has them."""
        return self.placements.named(self.short.graph if self.short else self.graph, ())

    def work(self, placing: Placing, replicate: bool = False) -> Work:
        """Return the work of a placing; ``replicate`` operators without a rule, or refuse them."""
        regular = not isinstance(placing.mesh, StagedMesh) and not any(
            isinstance(start, str) for start in placing.stage_starts
        )
        placed = None
        if regular and self.short is not None:
            placed = self.placements.place(self.short.graph, placing, replicate)
        if self.short is None or placed is None:
            return self._work_of_plan(placing, replicate)
        mesh, axis = placing.mesh, placing.stage_axes
        devices = {
            rank: self._device(placed, mesh, rank)
            for rank in distinct_ranks(placed.cuts, mesh, axis)
        }
        model = next(iter(devices.values())).steps
        if id(model.shared) not in self.step_graphs:
            short = attrs.evolve(self.short, graph=placed.graph)
            self.step_graphs[id(model.shared)] = StepGraph(
                self.graph, short, placed.placed, model.shared.steps
            )
        graph = self.step_graphs[id(model.shared)]
        stages = stage_steps(graph, model.outline, placing, axis, self.placements.works(placed))
        if stages is None:
            return self._work_of_plan(placing, replicate)
        ranks = tuple(mesh.group(0, axis)) if axis else (0,)
        works = []
        known: dict[object, tuple[int, Stage]] = {}
        for number, rank in enumerate(ranks):
            key = stages.kind(number)
            if key not in known:
                known[key] = rank, self._stage(stages, number, devices, ranks)
            equal_rank, stage = known[key]
            works.append(_shift_ranks(stage, rank - equal_rank))
        return combine_stages(works, mesh.size, len(self.graph.layers))

    def _device(self, placed: CachedPlacement, mesh: Mesh, rank: int) -> _Device:
        bindings = bindings_of(placed.cuts, mesh, rank)
        scalings = TensorScalings(self.symbols, bindings, mesh.size)
        return _Device(self.device_steps.of(placed, mesh, rank), scalings, mesh)

    def _work_of_plan(self, placing: Placing, replicate: bool) -> Work:
        missing = "replicate" if replicate else "error"
        return work_from_plan(partition_placing(self.graph, placing, self.rules, missing))

    def _stage(
        self,
        stages: StageSteps,
        number: int,
        devices: Mapping[int, _Device],
        ranks: tuple[int, ...],
    ) -> Stage:
        """Return the work of a stage's busiest device; ``ranks`` has one rank of each stage."""
        best: tuple[float, Stage] | None = None
        for first, device in devices.items():
            operators = device.operator_list(stages, number, tuple(first + rank for rank in ranks))
            found = stage_work(operators, device.steps.shared.structure(operators))
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            raise ParframeError("internal", f"stage {number}", "has no device", "report this")
        return best[1]


@attrs.frozen
class _Device:
    """Steps of the devices of one shape, and the sizes there."""

    steps: DeviceSteps
    scalings: TensorScalings
    mesh: Mesh

    def operator_list(
        self, stages: StageSteps, number: int, ranks: tuple[int, ...]
    ) -> OperatorList:
        """Return the operators of a device in a stage; it sends to ``ranks``, one of each stage."""
        rank = ranks[number]
        steps = stages.steps[number]
        operators = self.steps.shared.operator_range(tuple(step for step, _ in steps))
        counts = zip(operators.lengths, steps, strict=True)
        sends = tuple(
            (value, kind, ranks if kind == "broadcast" else (rank, ranks[to]))
            for value, kind, to in stages.sends[number]
        )

        def group(axes: tuple[str, ...]) -> tuple[int, ...]:
            return tuple(self.mesh.group(rank, axes))

        return OperatorList(
            operators=operators.operators,
            counts=tuple(count for length, (_, count) in counts for _ in range(length)),
            tensors=self.steps.outline.tensors,
            parameters=operators.parameters,
            outputs=stages.outputs[number],
            sends=sends,
            scalings=self.scalings,
            group=group,
        )


def _shift_ranks(stage: Stage, by: int) -> Stage:
    """Return the work of an equal stage whose ranks are ``by`` higher."""
    if by == 0:
        return stage
    communication = tuple(
        attrs.evolve(operator, ranks=tuple(rank + by for rank in operator.ranks))
        for operator in stage.communication
    )
    return attrs.evolve(stage, communication=communication)
