"""Reductions typed: whether what the members of a group hold makes up the whole, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import attrs

from parframe.checking.boxes import Box, hull, tiles
from parframe.checking.concrete_types import (
    Concrete,
    Measured,
    MeasuredShare,
    Reducible,
)
from parframe.checking.samples import COUNT, Numbers
from parframe.checking.tensor_types import add_marks

_REPEATABLE = frozenset({"max", "min", "any", "all"})
"""Reductions that may meet the same contribution twice."""


@attrs.frozen
class Outcome:
    """What a member gets, and what is wrong with it (``""`` if nothing)."""

    result: Concrete
    fault: str = ""
    kind: str = "collective"


@lru_cache(maxsize=50_000)
def reduce(members: tuple[Concrete, ...], reduction: str) -> Outcome:
    """The sum (or another reduction) of what the members hold."""
    first = members[0]
    meant = attrs.evolve(first, done=total_of(first), pending=())
    fault = difference(members, ("place", "total"))
    if fault:
        return Outcome(meant, fault)
    terms = {term.term: term for member in members for term in member.pending}
    if not terms:
        return Outcome(meant, f"{first.label} is complete: nothing is to be reduced", "partial")
    copies = {term: max(_count(member, term) for member in members) for term in terms}
    for member in members:
        missing = [-term * (count - _count(member, term)) for term, count in copies.items()]
        if add_marks(member.done, *missing):
            return Outcome(
                meant,
                f"a complete value is part of the sum that holds {first.label}, so that "
                "every device would add it",
                "partial",
            )
    left: list[Reducible] = []
    done = 0
    for term in sorted(terms.values(), key=lambda term: term.term):
        contributions, fault = _reduced_term(members, term, reduction)
        if fault:
            return Outcome(meant, f"{term.label}: {fault}", "partial")
        if contributions:
            left.extend([attrs.evolve(term, contributions=contributions)] * copies[term.term])
        else:
            done = add_marks(done, term.term * copies[term.term])
    return Outcome(attrs.evolve(first, done=done, pending=tuple(left)))


def _count(member: Concrete, term: int) -> int:
    """How often a member has a term that is still to be reduced."""
    return sum(pending.term == term for pending in member.pending)


def _reduced_term(
    members: Sequence[Concrete], term: Reducible, reduction: str
) -> tuple[frozenset[tuple[MeasuredShare, ...]], str]:
    """What is left to be reduced of one term after a reduction, and what is wrong."""
    if term.reduction != reduction:
        return frozenset(), f"is to be reduced by {term.reduction}, not by {reduction}"
    found = []
    for member in members:
        own = {t.contributions for t in member.pending if t.term == term.term} or {frozenset()}
        if len(own) > 1:
            return frozenset(), "is part of the sum twice, with different shares"
        found.append(own.pop())
    return _reduced(found, reduction not in _REPEATABLE)


def _reduced(
    members: Sequence[frozenset[tuple[MeasuredShare, ...]]], once: bool
) -> tuple[frozenset[tuple[MeasuredShare, ...]], str]:
    """What is left to be reduced of a term after its members' contributions met.

    Where their parts leave gaps, which other groups may fill, all parts are left as they are.
    """
    left: set[tuple[MeasuredShare, ...]] = set()
    for keys in _grouped(members):
        boxes = [box for member in members for box in _boxes(member, keys)]
        faults = {tiles(here, once) if keys else "overlap" for here in _sampled(boxes)} - {""}
        if "overlap" in faults:
            dims = ", ".join(dim for _, dim, _ in keys) or "the whole"
            return frozenset(), f"the devices' parts of {dims} overlap"
        for box in boxes if faults else [hull_of(boxes)]:
            kept = tuple(
                (key, piece)
                for key, piece in zip(keys, box, strict=True)
                if piece != ((0,) * COUNT, key[2])
            )
            if kept:
                left.add(kept)
    return frozenset(left), ""


def _sampled(boxes: Sequence[Sequence[Measured]]) -> Iterator[tuple[Box, ...]]:
    """The boxes at every sample."""
    for sample in range(COUNT):
        yield tuple(tuple((start[sample], stop[sample]) for start, stop in box) for box in boxes)


def _grouped(
    members: Sequence[frozenset[tuple[MeasuredShare, ...]]],
) -> list[tuple[tuple[str, str, Numbers], ...]]:
    """The contributions that belong together: by contraction, the dimensions of any member."""
    found: dict[tuple[str, ...], dict[tuple[str, str, Numbers], None]] = {}
    for member in members:
        for contribution in member:
            name = tuple(dict.fromkeys(source for (source, _, _), _ in contribution))
            known = found.setdefault(name, {})
            known.update(dict.fromkeys(key for key, _ in contribution))
    return [tuple(sorted(keys)) for keys in found.values()]


def _boxes(
    member: frozenset[tuple[MeasuredShare, ...]], keys: tuple[tuple[str, str, Numbers], ...]
) -> list[list[Measured]]:
    """A member's shares of each key; all of it where it is not among its contributions."""
    sources = {source for source, _, _ in keys}
    own = [
        dict(contribution)
        for contribution in sorted(member)
        if {source for (source, _, _), _ in contribution} <= sources
    ]
    return [[found.get(key, ((0,) * COUNT, key[2])) for key in keys] for found in own or [{}]]


def hull_of(boxes: Iterable[Sequence[Measured]]) -> list[Measured]:
    """The smallest box around boxes that are not empty, at every sample."""
    boxes = list(boxes)
    outer: list[Box] = []
    for sample in range(COUNT):
        here = [tuple((start[sample], stop[sample]) for start, stop in box) for box in boxes]
        outer.append(hull(here) or here[0])
    return [
        (tuple(box[i][0] for box in outer), tuple(box[i][1] for box in outer))
        for i in range(len(boxes[0]))
    ]


def total_of(member: Concrete) -> int:
    """The number that stands for the sum of all terms of a member."""
    return add_marks(member.done, *(term.term for term in member.pending))


def difference(members: Sequence[Concrete], what: tuple[str, ...]) -> str:
    """Why the members do not hold the same, or ``""``."""
    first = members[0]
    for number, other in enumerate(members[1:], 1):
        if other.axes != first.axes or total_of(other) != total_of(first):
            return f"member {number} has {other.label or 'another sum'}, member 0 {first.label}"
        if "place" in what and other.ranges != first.ranges:
            return f"members 0 and {number} hold different parts of {first.label}"
        if "pending" in what and (other.done, _anonymous(other)) != (first.done, _anonymous(first)):
            return f"members 0 and {number} have different parts of {first.label} still to reduce"
    return ""


def _anonymous(member: Concrete) -> tuple[object, ...]:
    return tuple((t.term, t.reduction, t.contributions) for t in member.pending)
