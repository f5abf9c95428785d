"""Shortened graphs: each kind of layer a few times, and the map to the layers of the whole."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.graph import Call, OperatorGraph, map_outputs

_LONGEST = 8
"""Most calls of a repeating pattern, such as windowed layers between full ones."""

_KEPT = 4
"""Periods that are kept: the first, which may convert values for the others, and three more,
so that a layer that is counted several times has equal layers before and after it."""


@attrs.frozen
class LayerRun:
    """Calls that repeat with a period.

    Parameters
    ----------
    first, count
        First call in the whole graph, and number of calls.
    start
        First call in the shortened graph.
    period
        Calls of a period.
    dropped
        Calls after the second period that the shortened graph lacks.
    """

    first: int
    count: int
    start: int
    period: int
    dropped: int

    @property
    def kept(self) -> int:
        """Number of calls in the shortened graph."""
        return self.count - self.dropped

    def short(self, place: int) -> int:
        """Return the shortened graph's call that represents a call of the run."""
        if place < 2 * self.period:
            return place
        if place >= 2 * self.period + self.dropped:
            return place - self.dropped
        return self.period + place % self.period

    def portion(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield calls of the shortened graph, with counts, for consecutive calls of the run.

        Consecutive calls of the run stay consecutive. The first and the last are counted once.
        """
        length, period = end - begin, self.period
        if end == self.count:
            start = max(begin if begin < period else period, self.kept - length)
            start += (begin - start) % period if begin >= period else 0
            more = (length - (self.kept - start)) // period
        else:
            start = begin if begin < period else period + begin % period
            more = max(0, -(-(start + length - self.kept) // period))
        again = max(start + 1, period)
        for place in range(start, start + length - more * period):
            yield place, 1 + more * (again <= place < again + period)


@attrs.frozen
class ShortenedGraph:
    """Shortened graph, and the runs of the whole one, including those of a single call."""

    graph: OperatorGraph
    runs: tuple[LayerRun, ...]

    def portion(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return calls of the shortened graph, with counts, for calls ``begin`` to ``end``."""
        found: list[tuple[int, int]] = []
        for run in self.runs:
            low, high = max(begin, run.first), min(end, run.first + run.count)
            if low < high:
                inside = run.portion(low - run.first, high - run.first)
                found.extend((run.start + place, count) for place, count in inside)
        return found


def shorten(graph: OperatorGraph) -> ShortenedGraph | None:
    """Return a graph with a few of its equal layers, or None if their connections differ."""
    runs = tuple(_runs([call.block for call in graph.calls]))
    stands: dict[str, str] = {}
    for run in runs:
        for place in range(run.count):
            full = graph.calls[run.first + place]
            short = graph.calls[_whole(run, run.short(place))]
            stands.update(zip(full.outputs, short.outputs, strict=True))
    if not all(_repeats(graph, run, stands) for run in runs):
        return None
    calls = [
        attrs.evolve(call, inputs=tuple(stands.get(name, name) for name in call.inputs))
        for run in runs
        for place in range(run.kept)
        for call in [graph.calls[_whole(run, place)]]
    ]
    used = {name for call in calls for name in call.parameters}
    return ShortenedGraph(
        attrs.evolve(
            graph,
            calls=tuple(calls),
            outputs=map_outputs(graph.outputs, stands),
            parameters={name: part for name, part in graph.parameters.items() if name in used},
        ),
        runs,
    )


def _whole(run: LayerRun, place: int) -> int:
    """Return the call of the whole graph for a call of a run in the shortened one."""
    return run.first + (place if place < 2 * run.period else place + run.dropped)


def _repeats(graph: OperatorGraph, run: LayerRun, stands: dict[str, str]) -> bool:
    """Return whether all periods of a run take inputs from the same places."""
    shifted: dict[str, str] = {}
    for place in range(run.period, run.count):
        now, before = graph.calls[run.first + place], graph.calls[run.first + place - run.period]
        shifted.update(zip(before.outputs, now.outputs, strict=True))
    own = {name for place in range(run.count) for name in graph.calls[run.first + place].outputs}

    def alike(place: int) -> bool:
        now: Call = graph.calls[run.first + place]
        before: Call = graph.calls[run.first + place - run.period]
        return all(
            shifted.get(old) == new if new in own else old == new
            for new, old in zip(now.inputs, before.inputs, strict=True)
        )

    return not run.dropped or all(alike(place) for place in range(2 * run.period, run.count))


def _runs(blocks: list[str]) -> Iterator[LayerRun]:
    at = start = 0
    while at < len(blocks):
        best, period = 1, 1
        for length in range(1, min(_LONGEST, len(blocks) - at) + 1):
            end = at + length
            while end < len(blocks) and blocks[end] == blocks[end - length]:
                end += 1
            if end - at > best and end - at >= (_KEPT + 1) * length:
                best, period = end - at, length
                break
        dropped = max(0, best // period - _KEPT) * period if best > 1 else 0
        yield LayerRun(at, best, start, period, dropped)
        at += best
        start += best - dropped
