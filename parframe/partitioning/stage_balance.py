"""Pipeline stages: where a device's sequence of operators is cut.

A stage is as heavy as its share of compute or of memory, whichever is more; the cut keeps the
heaviest stage light (the eighth power of a share stands for the greatest), and among equals takes
where the fewest bytes cross. Where devices are unequal, a stage's share is reckoned against theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy

from parframe.errors import ParframeError

_POWER = 8
_CANDIDATES = 600
_LEAST = 0.02
"""The least share of an even stage that may stand before the first cut, or behind the last."""


@attrs.frozen
class Cost:
    """What one entry of the sequence costs.

    ``crossing`` is the bytes of values that are alive after it and would have to be sent if a
    stage ended there.
    """

    flops: float
    weight_bytes: float
    crossing: float


@attrs.frozen(eq=False)
class Course:
    """The costs of all entries, added up along the sequence.

    Parameters
    ----------
    before
        The parts of all compute and of all memory that stand before every entry and at the end.
    crossing
        The bytes that cross behind every entry.
    """

    before: Any
    crossing: Any

    @classmethod
    def of(cls, costs: Sequence[Cost]) -> Course:
        """Add costs up."""
        rows = numpy.array([[c.flops for c in costs], [c.weight_bytes for c in costs]], float)
        sums = rows.sum(axis=1, keepdims=True)
        share = numpy.divide(rows, sums, out=numpy.zeros_like(rows), where=sums > 0)
        before = numpy.concatenate([numpy.zeros((2, 1)), numpy.cumsum(share, axis=1)], axis=1)
        return cls(before, numpy.array([c.crossing for c in costs], float))

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self.crossing)


def cut_stages(course: Course, shares: Sequence[int], fixed: Sequence[int] = ()) -> tuple[int, ...]:
    """Where stages begin.

    Parameters
    ----------
    course
        What the entries cost.
    shares
        For every stage, in which ratio they are to be heavy.
    fixed
        Entries at which a stage must begin.

    Returns
    -------
    tuple of int
        The first entry of every stage but the first, ascending.

    Raises
    ------
    ParframeError
        If there are not so many places to cut.
    """
    stages = len(shares)
    if stages == 1:
        return ()
    if len(fixed) > stages - 1:
        raise ParframeError(
            "partition",
            "stage_starts",
            f"{len(fixed)} stage starts make {len(fixed) + 1} stages, but the mesh has {stages}",
            f"give at most {stages - 1} stage starts",
        )
    places = _places(course, stages, fixed)
    if len(places) < stages - 1:
        raise ParframeError(
            "partition",
            "axis pp",
            f"{stages} stages, but the model has only {len(places) + 1} parts to make them of",
            f"use at most {len(places) + 1} stages",
        )
    return _balance(course, places, shares, sorted(fixed))


def _places(course: Course, stages: int, fixed: Sequence[int]) -> list[int]:
    """Entries before which a cut is worth considering: the fewest bytes cross there, nearby."""
    load = (course.before * stages).mean(axis=0)[1:-1]
    inner = 1 + numpy.flatnonzero((load > _LEAST) & (load < stages - _LEAST))
    if len(inner) < stages:
        inner = 1 + numpy.flatnonzero((load > 0) & (load < stages))
    crossing = course.crossing[inner - 1]
    reach = max(len(inner) // (2 * stages), 1)
    while True:
        low = inner[crossing <= _least(crossing, reach)]
        if len(low) >= min(4 * stages, len(inner)) or reach == 0:
            break
        reach //= 2
    return sorted({*low[:: len(low) // _CANDIDATES + 1].tolist(), *fixed})


def _least(values: Any, reach: int) -> Any:
    """The least of the values within reach of each, by windows of twice the width in turn."""
    wide = 2 * reach + 1
    least = numpy.pad(values, reach, constant_values=numpy.inf)
    width = 1
    while 2 * width <= wide:
        least = numpy.minimum(least[:-width], least[width:])
        width *= 2
    return numpy.minimum(least[: len(values)], least[wide - width : wide - width + len(values)])


def _balance(
    course: Course, places: list[int], shares: Sequence[int], fixed: list[int]
) -> tuple[int, ...]:
    """The cheapest stages by where each ends; what is from one end to another has it in its row."""
    stages = len(shares)
    ends = numpy.array([0, *places, course.count])
    compute, memory = (row[:, None] - row[None, :] for row in (course.before * stages)[:, ends])
    gap, mean = numpy.maximum(compute, memory), (compute + memory) / 2
    crossing = numpy.array([0.0, *course.crossing[numpy.array(places) - 1], 0.0])
    crossing = 0.02 * crossing / max(float(numpy.median(crossing[1:-1])), 1.0)
    width = len(ends)
    best: Any = numpy.full(width, numpy.inf)
    best[0] = 0.0
    chosen: list[Any] = []
    legal = (gap > 0) & _allowed(ends, fixed)
    spent: dict[int, Any] = {}
    for share in shares:
        if share not in spent:
            even = sum(shares) / (stages * share)
            power = (gap[legal] * even) ** _POWER + 0.1 * (mean[legal] * even) ** _POWER
            spent[share] = numpy.full((width, width), numpy.inf)
            spent[share][legal] = power
        price = best[None, :] + spent[share]
        price += crossing[:, None]
        chosen.append(price.argmin(axis=1))
        best = price[numpy.arange(width), chosen[-1]]
    if not numpy.isfinite(best[-1]):
        raise ParframeError(
            "partition",
            "stage_starts",
            f"no {stages} stages of some work each fit between these stage starts",
            "give fewer stage starts, or fewer stages",
        )
    at = width - 1
    cuts: list[int] = []
    for choice in reversed(chosen):
        at = int(choice[at])
        cuts.append(int(ends[at]))
    return tuple(sorted(cuts[:-1]))


def _allowed(ends: Any, fixed: list[int]) -> Any:
    """Which pairs of ends may be one stage: none that a fixed cut lies within."""
    before = numpy.searchsorted(numpy.array(fixed), ends, side="right") if fixed else 0 * ends
    strictly = numpy.searchsorted(numpy.array(fixed), ends, side="left") if fixed else 0 * ends
    return before[None, :] >= strictly[:, None]
