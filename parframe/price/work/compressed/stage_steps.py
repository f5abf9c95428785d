"""Steps of each pipeline stage in a shortened graph: with counts, and the values that are sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import attrs

from parframe.graph import OperatorGraph
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.stage_balance import CumulativeCosts
from parframe.partitioning.stage_inputs import find_stage_inputs, uses_broadcast
from parframe.partitioning.stage_starts import check_stage_count, find_stage_starts
from parframe.partitioning.step_costs import recomputable_steps, step_costs
from parframe.partitioning.step_sequence import ModelSteps, Step
from parframe.price.work.compressed.repeated_layers import ShortenedGraph
from parframe.strategy import Placing, StageStart

Send = tuple[str, str, int]
"""Value of the shortened graph, ``send`` or ``broadcast``, and the receiving stage."""


@attrs.frozen
class StageSteps:
    """Steps with counts, sends and model outputs of every stage."""

    steps: tuple[tuple[tuple[int, int], ...], ...]
    sends: tuple[tuple[Send, ...], ...]
    outputs: tuple[frozenset[str], ...]

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self.steps)

    def kind(self, stage: int) -> object:
        """Return a key that is equal for stages with the same steps, sends and outputs."""
        sends = tuple(
            (value, how, to - stage if how == "send" else stage)
            for value, how, to in self.sends[stage]
        )
        return self.steps[stage], sends, self.outputs[stage]


def stage_steps(
    steps: StepGraph,
    outline: ModelSteps,
    placing: Placing,
    axis: tuple[str, ...],
    works: Mapping[str, float],
) -> StageSteps | None:
    """Return the stages of a placing, which begin where those of a plan do.

    ``works`` has the multiplications of the shortened graph's operators. Returns None if equal
    layers have different steps, so the shortened graph does not represent them.
    """
    if not steps.layers_are_equal():
        return None
    shares = placing.mesh.ratio(axis) if axis else (1,)
    check_stage_count(len(shares), len(steps.graph.layers), axis)
    return _StageAssignment(steps, *steps.cut(outline, shares, placing, works)).stage_steps()


class StepGraph:
    """Steps of the whole model, each represented by a step of the shortened graph.

    ``steps`` are those of a device that has all of the shortened graph in one stage.
    """

    def __init__(
        self,
        graph: OperatorGraph,
        short: ShortenedGraph,
        placed: PlacedGraph,
        steps: tuple[Step, ...],
    ) -> None:
        self.graph = graph
        self.short = short
        self.placed = placed
        self.inputs = {*short.graph.inputs, *short.graph.parameters}
        self.weights = {n for n, p in short.graph.parameters.items() if p.kind == "parameter"}
        self.producers: dict[str, int] = {}
        self.steps_of_call: list[list[int]] = [[] for _ in range(len(short.graph.calls) + 1)]
        self.reads = [step.reads for step in steps]
        self.writes = [step.writes for step in steps]
        for number, step in enumerate(steps):
            self.producers.update(dict.fromkeys(self.writes[number], number))
            self.steps_of_call[step.call].append(number)
        self.call_and_offset = {
            number: (call, offset)
            for call, numbers in enumerate(self.steps_of_call)
            for offset, number in enumerate(numbers)
        }
        self.call_count = len(graph.calls)
        self.short_calls = [
            place
            for run in short.runs
            for place in (run.start + run.short(number) for number in range(run.count))
        ]
        self.short_calls.append(len(short.graph.calls))
        self.first_steps = [0]
        for call in self.short_calls:
            self.first_steps.append(self.first_steps[-1] + len(self.steps_of_call[call]))
        self.costs: dict[ModelSteps, tuple[CumulativeCosts, Mapping[int, frozenset[int]]]] = {}

    def layers_are_equal(self) -> bool:
        """Return whether all but the first of equal calls have the same number of steps."""
        for run in self.short.runs:
            for place in range(2 * run.period, run.kept):
                steps = self.steps_of_call[run.start + place]
                earlier = self.steps_of_call[run.start + place - run.period]
                if len(steps) != len(earlier):
                    return False
        return True

    def cut(
        self,
        outline: ModelSteps,
        shares: tuple[int, ...],
        placing: Placing,
        works: Mapping[str, float],
    ) -> tuple[tuple[int, ...], Mapping[int, frozenset[int]]]:
        """Return the first step of each stage and the end of the last, and the cheap steps."""
        if len(shares) == 1:
            return (0, self.first_steps[-1]), {}
        if outline not in self.costs:
            self.costs[outline] = self._costs(outline, works)
        costs, closures = self.costs[outline]
        layers = len(self.graph.layers)
        starts = find_stage_starts(costs, shares, placing.stage_starts, layers, self._first_step)
        return (0, *starts, costs.count), closures

    def _costs(
        self, outline: ModelSteps, works: Mapping[str, float]
    ) -> tuple[CumulativeCosts, Mapping[int, frozenset[int]]]:
        """Return the costs of all steps, and the steps that are cheap enough to compute again."""
        closures = recomputable_steps(outline, self.producers, self.inputs, self.weights, works)
        costs = step_costs(outline, self.producers, closures, self.inputs, works)
        whole = (costs[n] for call in self.short_calls for n in self.steps_of_call[call])
        return CumulativeCosts.of(list(whole)), closures

    def _first_step(self, start: StageStart) -> int | None:
        """Return the first step of a layer; modules are not looked up here."""
        return self.first_steps[self.graph.layers[start]] if isinstance(start, int) else None

    def call_of(self, position: int) -> int:
        """Return the whole model's call that has a step."""
        return bisect_right(self.first_steps, position) - 1


class _StageAssignment:
    """Assignment of steps to stages that begin at given steps of the whole model."""

    def __init__(
        self, steps: StepGraph, starts: tuple[int, ...], closures: Mapping[int, frozenset[int]]
    ) -> None:
        self.steps = steps
        self.starts = starts
        self.closures = closures

    def stage_steps(self) -> StageSteps:
        """Return the steps, sends and outputs of every stage."""
        graph = self.steps
        assigned = [self._steps(number) for number in range(len(self.starts) - 1)]
        receivers: dict[tuple[int, int], set[int]] = {}
        steps = []
        for number, own in enumerate(assigned):
            inside = {step for step, _ in own}
            reads = (value for step, _ in own for value in graph.reads[step])
            recomputed, received = find_stage_inputs(
                reads, inside, graph.inputs, graph.producers, self.closures
            )
            for value in received:
                producer = graph.producers[value]
                position = self._position(number, own, producer)
                key = (position, graph.writes[producer].index(value))
                receivers.setdefault(key, set()).add(number)
            steps.append((*((step, 1) for step in sorted(recomputed)), *own))
        return StageSteps(tuple(steps), self._sends(receivers), self._outputs())

    def _steps(self, stage: int) -> list[tuple[int, int]]:
        """Return the steps of a stage with their counts."""
        graph = self.steps
        begin, end = self.starts[stage], self.starts[stage + 1]
        first, last = graph.call_of(begin), graph.call_of(end - 1)
        calls = graph.short.portion(first, min(last + 1, graph.call_count))
        if last == graph.call_count:
            calls.append((graph.short_calls[last], 1))
        found: list[tuple[int, int]] = []
        for at, (call, count) in enumerate(calls):
            numbers = graph.steps_of_call[call]
            low = begin - graph.first_steps[first] if at == 0 else 0
            high = end - graph.first_steps[last] if at == len(calls) - 1 else len(numbers)
            found.extend((number, count) for number in numbers[low:high])
        return found

    def _position(self, stage: int, own: list[tuple[int, int]], producer: int) -> int:
        """Return the step of the whole model that makes a value for a stage."""
        graph = self.steps
        call, offset = graph.call_and_offset[producer]
        first, _ = graph.call_and_offset[own[0][0]]
        first_whole = graph.call_of(self.starts[stage])
        for run in graph.short.runs:
            if run.start <= call < run.start + run.kept:
                if run.start <= first < run.start + run.kept:
                    whole = first_whole - (first - call)
                elif call - run.start < 2 * run.period:
                    whole = run.first + call - run.start
                else:
                    whole = run.first + call - run.start + run.dropped
                return graph.first_steps[whole] + offset
        return graph.first_steps[graph.call_count] + offset

    def _sends(self, receivers: Mapping[tuple[int, int], set[int]]) -> tuple[tuple[Send, ...], ...]:
        count = len(self.starts) - 1
        sends: list[list[Send]] = [[] for _ in range(count)]
        for (position, output), stages in sorted(receivers.items()):
            home = bisect_right(self.starts, position) - 1
            value = self._value(home, position, output)
            if uses_broadcast(len(stages), count):
                sends[home].append((value, "broadcast", 0))
            else:
                sends[home].extend((value, "send", stage) for stage in sorted(stages))
        return tuple(map(tuple, sends))

    def _value(self, stage: int, position: int, output: int) -> str:
        """Return the name of a step's output among the steps of its stage."""
        graph = self.steps
        call = graph.call_of(position)
        first = graph.call_of(self.starts[stage])
        last = graph.call_of(self.starts[stage + 1] - 1)
        calls = [
            short
            for short, count in graph.short.portion(first, min(last + 1, graph.call_count))
            for _ in range(count)
        ]
        if last == graph.call_count:
            calls.append(graph.short_calls[last])
        short = calls[call - last - 1] if call - first >= len(calls) // 2 else calls[call - first]
        number = graph.steps_of_call[short][position - graph.first_steps[call]]
        return graph.writes[number][output]

    def _outputs(self) -> tuple[frozenset[str], ...]:
        """Return the values of the model that each stage returns, where they are made."""
        graph = self.steps
        found: list[set[str]] = [set() for _ in self.starts[1:]]
        for _, local, _ in graph.placed.outputs:
            if local in graph.producers:
                call, offset = graph.call_and_offset[graph.producers[local]]
                whole = len(graph.short_calls) - 1 - graph.short_calls[::-1].index(call)
                position = graph.first_steps[whole] + offset
                found[bisect_right(self.starts, position) - 1].add(local)
        return tuple(map(frozenset, found))
