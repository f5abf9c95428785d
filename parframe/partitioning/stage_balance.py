"""Balance of pipeline stages: where stages start so that the most expensive one is cheap.

The cost of a stage is its fraction of all compute or of all weight bytes, whichever is larger. The
maximum over stages is approximated by the sum of eighth powers. Among equal balances the one with
the fewest bytes between stages is taken. Where devices are unequal, the cost of a stage is divided
by its share of the devices' capacity.
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
"""Least fraction of an even stage before the first boundary, and after the last one."""


@attrs.frozen
class StepCost:
    """Cost of one step.

    ``flops`` counts multiplications, ``weight_bytes`` the weights that no earlier step reads, and
    ``crossing`` the bytes that are sent if a stage ends after the step.
    """

    flops: float
    weight_bytes: float
    crossing: float


@attrs.frozen(eq=False)
class CumulativeCosts:
    """Cumulative costs of a sequence of steps.

    ``before`` has shape (2, steps + 1): for compute and memory, the fraction of the whole before
    every step, and 1 at the end. ``crossing`` has the bytes that are sent if a stage ends after
    each step.
    """

    before: Any
    crossing: Any

    @classmethod
    def of(cls, steps: Sequence[StepCost]) -> CumulativeCosts:
        """Accumulate the costs of steps."""
        rows = numpy.array([[c.flops for c in steps], [c.weight_bytes for c in steps]], float)
        sums = rows.sum(axis=1, keepdims=True)
        share = numpy.divide(rows, sums, out=numpy.zeros_like(rows), where=sums > 0)
        before = numpy.concatenate([numpy.zeros((2, 1)), numpy.cumsum(share, axis=1)], axis=1)
        return cls(before, numpy.array([c.crossing for c in steps], float))

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.crossing)


def balance_stages(
    costs: CumulativeCosts, shares: Sequence[int], fixed: Sequence[int] = ()
) -> tuple[int, ...]:
    """Return the first step of every stage but the first, ascending.

    ``shares`` are the stages' shares of the whole cost, ``fixed`` the steps at which a stage must
    start. Raise an error if there are not enough places where a stage can start.
    """
    stages = len(shares)
    if len(fixed) > stages - 1:
        raise ParframeError(
            "partition",
            "stage_starts",
            f"{len(fixed)} stage starts make {len(fixed) + 1} stages, but the mesh has {stages}",
            f"give at most {stages - 1} stage starts",
        )
    places = _places(costs, stages, fixed)
    if len(places) < stages - 1:
        raise ParframeError(
            "partition",
            "axis pp",
            f"{stages} stages, but the model has only {len(places) + 1} parts to make them of",
            f"use at most {len(places) + 1} stages",
        )
    return _balance(costs, places, shares, sorted(fixed))


def _places(costs: CumulativeCosts, stages: int, fixed: Sequence[int]) -> list[int]:
    """Return steps that are candidates for a start: fewest bytes cross before them, nearby."""
    load = (costs.before * stages).mean(axis=0)[1:-1]
    inner = 1 + numpy.flatnonzero((load > _LEAST) & (load < stages - _LEAST))
    if len(inner) < stages:
        inner = 1 + numpy.flatnonzero((load > 0) & (load < stages))
    crossing = costs.crossing[inner - 1]
    reach = max(len(inner) // (2 * stages), 1)
    while True:
        low = inner[crossing <= _least(crossing, reach)]
        if len(low) >= min(4 * stages, len(inner)) or reach == 0:
            break
        reach //= 2
    return sorted({*low[:: len(low) // _CANDIDATES + 1].tolist(), *fixed})


def _least(values: Any, reach: int) -> Any:
    """Return the minimum of the values within reach of each, by windows of doubling width."""
    wide = 2 * reach + 1
    least = numpy.pad(values, reach, constant_values=numpy.inf)
    width = 1
    while 2 * width <= wide:
        least = numpy.minimum(least[:-width], least[width:])
        width *= 2
    return numpy.minimum(least[: len(values)], least[wide - width : wide - width + len(values)])


def _balance(
    costs: CumulativeCosts, places: list[int], shares: Sequence[int], fixed: list[int]
) -> tuple[int, ...]:
    """Find the cheapest stages by dynamic programming over their ends.

    Matrices have a row for the end of a stage, and a column for its start.
    """
    stages = len(shares)
    ends = numpy.array([0, *places, costs.count])
    compute, memory = (row[:, None] - row[None, :] for row in (costs.before * stages)[:, ends])
    gap, mean = numpy.maximum(compute, memory), (compute + memory) / 2
    crossing = numpy.array([0.0, *costs.crossing[numpy.array(places) - 1], 0.0])
    crossing = 0.02 * crossing / max(float(numpy.median(crossing[1:-1])), 1.0)
    width = len(ends)
    best: Any = numpy.full(width, numpy.inf)
    best[0] = 0.0
    chosen: list[Any] = []
    left, right = (numpy.searchsorted(fixed, ends, side) for side in ("left", "right"))
    legal = (gap > 0) & (right[None, :] >= left[:, None])  # no fixed start within a stage
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
