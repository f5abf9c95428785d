"""Which steps of the short graph each pipeline stage has, how often, and what it sends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.stage_balance import Course, cut_stages
from parframe.partitioning.step_costs import cheap_steps, step_costs
from parframe.partitioning.step_sequence import Outline, Step
from parframe.price.work.compressed.repeated_layers import ShortenedGraph
from parframe.strategy import Placing

Sent = tuple[str, str, int]
"""A value of the short graph, how it is sent (``send`` or ``broadcast``), and to which stage."""


@attrs.frozen
class StageSteps:
    """For every stage: its steps with counts, what it sends, and what it returns of the model."""

    steps: tuple[tuple[tuple[int, int], ...], ...]
    sent: tuple[tuple[Sent, ...], ...]
    outputs: tuple[frozenset[str], ...]

    @property
    def count(self) -> int:
        """How many stages there are."""
        return len(self.steps)

    def kind(self, stage: int) -> object:
        """What is equal for stages that do the same and send it as far."""
        sent = tuple(
            (value, how, to - stage if how == "send" else stage)
            for value, how, to in self.sent[stage]
        )
        return self.steps[stage], sent, self.outputs[stage]


def stage_steps(
    steps: StepGraph,
    model: Outline,
    placing: Placing,
    axis: tuple[str, ...],
    works: Mapping[str, float],
) -> StageSteps | None:
    """The stages of a placing, begun where a plan begins them.

    Parameters
    ----------
    steps, model
        The steps of the model, and a device's with their sizes.
    placing, axis
        Where names lie, and the mesh axes of the stages.
    works
        Of the short graph's operators.

    Returns
    -------
    StageSteps or None
        None where equal layers have not the same steps, so that the short graph tells nothing.
    """
    if not steps.alike():
        return None
    graph = steps.graph
    shares = placing.mesh.ratio(axis) if axis else (1,)
    if len(shares) > 1 and graph.layers and len(shares) > len(graph.layers):
        raise ParframeError(
            "partition",
            "axis " + ",".join(axis),
            f"{len(shares)} pipeline stages, but the model has {len(graph.layers)} layers",
            f"use at most {len(graph.layers)} stages",
        )
    return _Stages(steps, *steps.cut(model, shares, placing, works)).staged()


class StepGraph:
    """The steps of the whole model, as steps of the short graph.

    Parameters
    ----------
    graph, short
        The whole graph and the short one.
    placed, steps
        The short graph placed, and what devices would do of it in one stage.
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
        self.given = {*short.graph.inputs, *short.graph.parameters}
        self.maker: dict[str, int] = {}
        self.of_call: list[list[int]] = [[] for _ in range(len(short.graph.calls) + 1)]
        self.reads = [step.reads for step in steps]
        self.writes = [step.writes for step in steps]
        for number, step in enumerate(steps):
            self.maker.update(dict.fromkeys(self.writes[number], number))
            self.of_call[step.call].append(number)
        self.place = {
            number: (call, offset)
            for call, numbers in enumerate(self.of_call)
            for offset, number in enumerate(numbers)
        }
        weights = {n for n, p in short.graph.parameters.items() if p.kind == "parameter"}
        self.weights = weights
        calls = len(graph.calls)
        self.calls = [
            place
            for run in short.runs
            for place in (run.start + run.short(number) for number in range(run.count))
        ]
        self.calls.append(len(short.graph.calls))
        self.firsts = [0]
        for call in self.calls:
            self.firsts.append(self.firsts[-1] + len(self.of_call[call]))
        self.ends = calls
        self.courses: dict[Outline, tuple[Course, Mapping[int, frozenset[int]]]] = {}

    def alike(self) -> bool:
        """Whether all but the first of equal calls have the same steps."""
        for run in self.short.runs:
            for place in range(2 * run.period, run.kept):
                one = self.of_call[run.start + place]
                other = self.of_call[run.start + place - run.period]
                if len(one) != len(other):
                    return False
        return True

    def cut(
        self,
        model: Outline,
        shares: tuple[int, ...],
        placing: Placing,
        works: Mapping[str, float],
    ) -> tuple[tuple[int, ...], Mapping[int, frozenset[int]]]:
        """Where stages begin and the last one ends, and the steps that are done again."""
        if len(shares) == 1:
            return (0, self.firsts[-1]), {}
        if model not in self.courses:
            self.courses[model] = self._course(model, works)
        course, closures = self.courses[model]
        fixed = sorted({self._fixed(cut) for cut in placing.stage_starts})
        return (0, *cut_stages(course, shares, fixed), course.count), closures

    def _course(
        self, model: Outline, works: Mapping[str, float]
    ) -> tuple[Course, Mapping[int, frozenset[int]]]:
        """What the steps cost, and those that are cheap enough to be done again."""
        closures = cheap_steps(model, self.maker, self.given, self.weights, works)
        costs = step_costs(model, self.maker, closures, self.given, works)
        whole = (costs[number] for call in self.calls for number in self.of_call[call])
        return Course.of(list(whole)), closures

    def _fixed(self, cut: str | int) -> int:
        layers = self.graph.layers
        if not isinstance(cut, int) or not 0 < cut < len(layers):
            raise ParframeError(
                "partition",
                f"stage_starts, {cut!r}",
                "no such place in the model",
                f"layers are numbered from 1 to {len(layers) - 1}",
            )
        return self.firsts[layers[cut]]

    def call(self, position: int) -> int:
        """The whole model's call of a step."""
        return bisect_right(self.firsts, position) - 1


class _Stages:
    """The stages that some steps make."""

    def __init__(
        self, of: StepGraph, begins: tuple[int, ...], closures: Mapping[int, frozenset[int]]
    ) -> None:
        self.of = of
        self.begins = begins
        self.closures = closures

    def staged(self) -> StageSteps:
        """What every stage does, sends and returns."""
        stages = [self._steps(number) for number in range(len(self.begins) - 1)]
        sent: dict[tuple[int, int], set[int]] = {}
        steps = []
        for number, own in enumerate(stages):
            inside = {step for step, _ in own}
            extra: set[int] = set()
            for step, _ in own:
                for value in self.of.reads[step]:
                    if value in self.of.given or self.of.maker[value] in inside:
                        continue
                    made = self.of.maker[value]
                    if made in self.closures:
                        extra |= self.closures[made]
                    else:
                        place = self._position(number, own, made)
                        key = (place, self.of.writes[made].index(value))
                        sent.setdefault(key, set()).add(number)
            steps.append((*((step, 1) for step in sorted(extra - inside)), *own))
        return StageSteps(tuple(steps), self._sent(sent), self._outputs())

    def _steps(self, stage: int) -> list[tuple[int, int]]:
        """The steps of a stage, with how often."""
        begin, end = self.begins[stage], self.begins[stage + 1]
        first, last = self.of.call(begin), self.of.call(end - 1)
        calls = self.of.short.portion(first, min(last + 1, self.of.ends))
        if last == self.of.ends:
            calls.append((self.of.calls[last], 1))
        found: list[tuple[int, int]] = []
        for at, (call, count) in enumerate(calls):
            numbers = self.of.of_call[call]
            low = begin - self.of.firsts[first] if at == 0 else 0
            high = end - self.of.firsts[last] if at == len(calls) - 1 else len(numbers)
            found.extend((number, count) for number in numbers[low:high])
        return found

    def _position(self, stage: int, own: list[tuple[int, int]], made: int) -> int:
        """Where in the whole model a step is done of which a stage needs a value."""
        call, offset = self.of.place[made]
        first, _ = self.of.place[own[0][0]]
        begun = self.of.call(self.begins[stage])
        for run in self.of.short.runs:
            if run.start <= call < run.start + run.kept:
                if run.start <= first < run.start + run.kept:
                    whole = begun - (first - call)
                elif call - run.start < 2 * run.period:
                    whole = run.first + call - run.start
                else:
                    whole = run.first + call - run.start + run.dropped
                return self.of.firsts[whole] + offset
        return self.of.firsts[self.of.ends] + offset

    def _sent(self, found: Mapping[tuple[int, int], set[int]]) -> tuple[tuple[Sent, ...], ...]:
        count = len(self.begins) - 1
        sent: list[list[Sent]] = [[] for _ in range(count)]
        for (position, which), stages in sorted(found.items()):
            home = bisect_right(self.begins, position) - 1
            value = self._value(home, position, which)
            if count > 2 and len(stages) == count - 1:
                sent[home].append((value, "broadcast", 0))
            else:
                sent[home].extend((value, "send", stage) for stage in sorted(stages))
        return tuple(map(tuple, sent))

    def _value(self, stage: int, position: int, which: int) -> str:
        """The value that a step makes, by its name among the steps of its stage."""
        call = self.of.call(position)
        first = self.of.call(self.begins[stage])
        last = self.of.call(self.begins[stage + 1] - 1)
        flat = [
            short
            for short, count in self.of.short.portion(first, min(last + 1, self.of.ends))
            for _ in range(count)
        ]
        if last == self.of.ends:
            flat.append(self.of.calls[last])
        here = flat[call - last - 1] if call - first >= len(flat) // 2 else flat[call - first]
        number = self.of.of_call[here][position - self.of.firsts[call]]
        return self.of.writes[number][which]

    def _outputs(self) -> tuple[frozenset[str], ...]:
        """The values of the model that each stage returns: where they are made."""
        found: list[set[str]] = [set() for _ in self.begins[1:]]
        for _, local, _ in self.of.placed.outputs:
            if local in self.of.maker:
                call, offset = self.of.place[self.of.maker[local]]
                whole = len(self.of.calls) - 1 - self.of.calls[::-1].index(call)
                position = self.of.firsts[whole] + offset
                found[bisect_right(self.begins, position) - 1].add(local)
        return tuple(map(frozenset, found))
