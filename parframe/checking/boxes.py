"""Boxes of index ranges, and whether they tile a whole without gap or overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from typing import TypeAlias

Interval: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[Interval, ...]
"""Half-open range along each of some dimensions."""


def hull(boxes: Iterable[Box]) -> Box | None:
    """Return the smallest box around the boxes that are not empty; None where all are empty."""
    full = [box for box in boxes if not is_empty(box)]
    if not full:
        return None
    return tuple(
        (min(start for start, _ in sides), max(stop for _, stop in sides))
        for sides in zip(*full, strict=True)
    )


def is_empty(box: Box) -> bool:
    """Return whether a box has no element."""
    return any(stop <= start for start, stop in box)


def volume(box: Box) -> int:
    """Return the number of elements."""
    return prod(stop - start for start, stop in box)


@lru_cache(maxsize=20_000)
def tiling_fault(boxes: tuple[Box, ...], once: bool) -> str:
    """Return how boxes fail to tile their hull (``"overlap"``, ``"leave a gap"``), or ``""``.

    Equal boxes count once, unless ``once`` says that every element must be there exactly once.
    """
    full = [box for box in boxes if not is_empty(box)]
    if not once:
        full = list(dict.fromkeys(full))
    whole = hull(full)
    if whole is None:
        return ""
    if len(whole) == 1:
        return _interval_fault(sorted(box[0] for box in full))
    if any(_overlap(one, other) for one, other in combinations(full, 2)):
        return "overlap"
    return "" if sum(volume(box) for box in full) == volume(whole) else "leave a gap"


def _interval_fault(intervals: Sequence[Interval]) -> str:
    for (_, stop), (start, _) in pairwise(intervals):
        if start < stop:
            return "overlap"
        if start > stop:
            return "leave a gap"
    return ""


def _overlap(one: Box, other: Box) -> bool:
    return all(
        start < end and begin < stop for (start, stop), (begin, end) in zip(one, other, strict=True)
    )
