"""Assignment of the steps of a model to pipeline stages, and the values that stages send."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from parframe.graph import OperatorGraph
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.stage_balance import CumulativeCosts
from parframe.partitioning.stage_inputs import find_stage_inputs, uses_broadcast
from parframe.partitioning.stage_starts import check_stage_count, find_stage_starts
from parframe.partitioning.step_costs import recomputable_steps, step_costs
from parframe.partitioning.step_sequence import StepSequence
from parframe.strategy import Placing, StageStart


class StageAssignment:
    """Steps of every pipeline stage, with those computed again, and the values it receives.

    ``axes`` are the mesh axes of the stages, ``shares`` each stage's share of the whole cost, and
    ``works`` the work of every operator. The stage that makes an output of the model returns it,
    unless ``last_returns_all``.
    """

    def __init__(
        self,
        graph: OperatorGraph,
        placed: PlacedGraph,
        model: StepSequence,
        axes: tuple[str, ...],
        shares: tuple[int, ...],
        placing: Placing,
        works: Mapping[str, float],
        last_returns_all: bool = False,
    ) -> None:
        self.graph = graph
        self.placed = placed
        self.axes = axes
        self.count = count = len(shares)
        self.last_returns_all = last_returns_all
        self.steps = model.steps
        self.given = {*graph.inputs, *graph.parameters}
        self.makers: dict[str, int] = {}
        for number, step in enumerate(model.steps):
            self.makers.update(dict.fromkeys(step.writes, number))
        weights = {n for n, p in graph.parameters.items() if p.kind == "parameter"}
        self.recomputable = recomputable_steps(model, self.makers, self.given, weights, works)
        starts = self._find_starts(model, shares, placing, works)
        self.ranges = [range(*ends) for ends in pairwise((0, *starts, len(self.steps)))]
        self.stage_of_step = [stage for stage, steps in enumerate(self.ranges) for _ in steps]
        self.steps_of_stage: list[list[int]] = []
        self.receivers: dict[str, list[int]] = {}
        for stage in range(count):
            self._assign(stage)
        receivers = self.receivers.items()
        self.broadcast = {v for v, stages in receivers if uses_broadcast(len(stages), count)}

    def _find_starts(
        self,
        model: StepSequence,
        shares: tuple[int, ...],
        placing: Placing,
        works: Mapping[str, float],
    ) -> tuple[int, ...]:
        if self.count == 1:
            return ()
        layers = len(self.graph.layers)
        check_stage_count(self.count, layers, self.axes)
        costs = step_costs(model, self.makers, self.recomputable, self.given, works)
        sums, given = CumulativeCosts.of(costs), placing.stage_starts
        return find_stage_starts(sums, shares, given, layers, self._first_step)

    def _first_step(self, start: StageStart) -> int | None:
        """Return the first step of a layer or of a module; None if the model has no such module."""
        for number, step in enumerate(self.steps):
            if isinstance(start, int):
                if step.call == self.graph.layers[start]:
                    return number
            elif any(
                operator.module == start or operator.module.startswith(f"{start}.")
                for operator in step.operators
            ):
                return number
        return None

    def _assign(self, stage: int) -> None:
        """Assign the steps of a stage, and those that it computes again."""
        own = set(self.ranges[stage])
        reads = [value for number in self.ranges[stage] for value in self.steps[number].reads]
        if stage == self.count - 1:
            outputs = [name for _, name, _ in self.placed.outputs if name in self.makers]
            reads += [
                name
                for name in outputs
                if self.last_returns_all or self.makers[name] in self.recomputable
            ]
        recomputed, received = find_stage_inputs(
            reads, own, self.given, self.makers, self.recomputable
        )
        for value in received:
            self.receivers.setdefault(value, []).append(stage)
        self.steps_of_stage.append(sorted(own | recomputed))

    def received(self, stage: int) -> list[str]:
        """List the values that a stage receives, in the order in which they are made."""
        values = (value for value, stages in self.receivers.items() if stage in stages)
        return sorted(values, key=self.order)

    def sent(self, stage: int) -> list[str]:
        """List the values that a stage sends."""
        return [value for value in self.receivers if self.home(value) == stage]

    def home(self, value: str) -> int:
        """Return the stage that makes a value."""
        return self.stage_of_step[self.makers[value]]

    def output_stage(self, value: str) -> int:
        """Return the stage that returns an output of the model."""
        if value not in self.makers:
            return 0
        return self.count - 1 if self.last_returns_all else self.home(value)

    def order(self, value: str) -> tuple[int, int]:
        """Return when a value is made: its step, and its position among what that step makes."""
        number = self.makers[value]
        return number, self.steps[number].writes.index(value)
