"""Types of reductions: the contributions of a group's ranks must make up the whole, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from typing import TypeAlias

import attrs

from parframe.checking.concrete_types import (
    ConcreteContractedRange,
    ConcreteRange,
    ConcreteTerm,
    ConcreteType,
)
from parframe.checking.samples import SAMPLE_COUNT, SampledSize
from parframe.checking.tensor_types import sum_ids

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


_REPEATABLE = frozenset({"max", "min", "any", "all"})
"""Reductions in which a contribution may occur twice."""


@attrs.frozen
class CollectiveResult:
    """Type that one rank gets from a collective, and the fault (or ``""``)."""

    result: ConcreteType
    fault: str = ""
    kind: str = "collective"


@lru_cache(maxsize=50_000)
def reduce_types(rank_types: tuple[ConcreteType, ...], reduction: str) -> CollectiveResult:
    """Return the type of a reduction of the ranks' tensors."""
    first = rank_types[0]
    expected = attrs.evolve(first, complete_id=first.sum_id, partial_terms=())
    fault = describe_difference(rank_types, ("ranges",))
    if fault:
        return CollectiveResult(expected, fault)
    terms = {term.term: term for rank_type in rank_types for term in rank_type.partial_terms}
    if not terms:
        return CollectiveResult(
            expected, f"{first.label} is complete, so there is nothing to reduce", "partial"
        )
    copies = {term: max(_count(rank_type, term) for rank_type in rank_types) for term in terms}
    for rank_type in rank_types:
        missing = [-term * (count - _count(rank_type, term)) for term, count in copies.items()]
        if sum_ids(rank_type.complete_id, *missing):
            return CollectiveResult(
                expected,
                f"a complete value is added to the partial sum of {first.label} on every rank, "
                "so that the reduction adds it more than once",
                "partial",
            )
    remaining: list[ConcreteTerm] = []
    complete_id = 0
    for term in sorted(terms.values(), key=lambda term: term.term):
        contributions, fault = _reduced_term(rank_types, term, reduction)
        if fault:
            return CollectiveResult(expected, f"{term.label}: {fault}", "partial")
        if contributions:
            remaining.extend([attrs.evolve(term, contributions=contributions)] * copies[term.term])
        else:
            complete_id = sum_ids(complete_id, term.term * copies[term.term])
    return CollectiveResult(
        attrs.evolve(first, complete_id=complete_id, partial_terms=tuple(remaining))
    )


def _count(rank_type: ConcreteType, term: int) -> int:
    """Return how often a term is among the partial terms of a rank."""
    return sum(partial.term == term for partial in rank_type.partial_terms)


def _reduced_term(
    rank_types: Sequence[ConcreteType], term: ConcreteTerm, reduction: str
) -> tuple[frozenset[tuple[ConcreteContractedRange, ...]], str]:
    """Return the contributions that remain of one term after a reduction, and the fault."""
    if term.reduction != reduction:
        return frozenset(), f"needs the reduction {term.reduction}, not {reduction}"
    found = []
    for rank_type in rank_types:
        own = {t.contributions for t in rank_type.partial_terms if t.term == term.term} or {
            frozenset()
        }
        if len(own) > 1:
            return frozenset(), "is in the sum twice, with different ranges"
        found.append(own.pop())
    return _reduced(found, reduction not in _REPEATABLE)


def _reduced(
    by_rank: Sequence[frozenset[tuple[ConcreteContractedRange, ...]]], once: bool
) -> tuple[frozenset[tuple[ConcreteContractedRange, ...]], str]:
    """Return the contributions of a term that remain after a reduction, and the fault.

    Where the ranks' ranges leave gaps, which other groups may fill, all ranges remain.
    """
    left: set[tuple[ConcreteContractedRange, ...]] = set()
    for keys in _grouped(by_rank):
        boxes = [box for contributions in by_rank for box in _boxes(contributions, keys)]
        faults = {tiling_fault(here, once) if keys else "overlap" for here in _sampled(boxes)} - {
            ""
        }
        if "overlap" in faults:
            dims = ", ".join(dim for _, dim, _ in keys) or "the whole tensor"
            return frozenset(), f"the ranks' parts of {dims} overlap"
        for box in boxes if faults else [concrete_hull(boxes)]:
            remaining_range = tuple(
                (key, piece)
                for key, piece in zip(keys, box, strict=True)
                if piece != ((0,) * SAMPLE_COUNT, key[2])
            )
            if remaining_range:
                left.add(remaining_range)
    return frozenset(left), ""


def _sampled(boxes: Sequence[Sequence[ConcreteRange]]) -> Iterator[tuple[Box, ...]]:
    """Yield the boxes at every sample."""
    for sample in range(SAMPLE_COUNT):
        yield tuple(tuple((start[sample], stop[sample]) for start, stop in box) for box in boxes)


def _grouped(
    by_rank: Sequence[frozenset[tuple[ConcreteContractedRange, ...]]],
) -> list[tuple[tuple[str, str, SampledSize], ...]]:
    """Return the keys of contributions that belong together, for each set of contractions."""
    found: dict[tuple[str, ...], dict[tuple[str, str, SampledSize], None]] = {}
    for contributions in by_rank:
        for contribution in contributions:
            name = tuple(dict.fromkeys(source for (source, _, _), _ in contribution))
            known = found.setdefault(name, {})
            known.update(dict.fromkeys(key for key, _ in contribution))
    return [tuple(sorted(keys)) for keys in found.values()]


def _boxes(
    contributions: frozenset[tuple[ConcreteContractedRange, ...]],
    keys: tuple[tuple[str, str, SampledSize], ...],
) -> list[list[ConcreteRange]]:
    """Return a rank's ranges for some keys; a key that is absent is whole."""
    sources = {source for source, _, _ in keys}
    own = [
        dict(contribution)
        for contribution in sorted(contributions)
        if {source for (source, _, _), _ in contribution} <= sources
    ]
    return [
        [found.get(key, ((0,) * SAMPLE_COUNT, key[2])) for key in keys] for found in own or [{}]
    ]


def concrete_hull(boxes: Iterable[Sequence[ConcreteRange]]) -> list[ConcreteRange]:
    """Return the smallest box around boxes that are not empty, at every sample."""
    boxes = list(boxes)
    outer: list[Box] = []
    for here in _sampled(boxes):
        outer.append(hull(here) or here[0])
    return [
        (tuple(box[i][0] for box in outer), tuple(box[i][1] for box in outer))
        for i in range(len(boxes[0]))
    ]


def describe_difference(rank_types: Sequence[ConcreteType], what: tuple[str, ...]) -> str:
    """Return how the ranks' types differ, or ``""``."""
    first = rank_types[0]
    for number, other in enumerate(rank_types[1:], 1):
        if other.tensor_dims != first.tensor_dims or other.sum_id != first.sum_id:
            return (
                f"rank {number} of the group has {other.label or 'another sum'}, "
                f"rank 0 of the group {first.label}"
            )
        if "ranges" in what and other.ranges != first.ranges:
            return f"ranks 0 and {number} of the group have different parts of {first.label}"
        if "partial" in what and (other.complete_id, _unlabeled(other)) != (
            first.complete_id,
            _unlabeled(first),
        ):
            return f"ranks 0 and {number} of the group have different partial sums of {first.label}"
    return ""


def _unlabeled(rank_type: ConcreteType) -> tuple[object, ...]:
    return tuple((t.term, t.reduction, t.contributions) for t in rank_type.partial_terms)
