"""Parts put together and taken apart: gathers, scatters and exchanges typed, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product as every
from typing import TypeAlias

import attrs

from parframe.checking.boxes import tiles
from parframe.checking.concrete_types import (
    Concrete,
    Measured,
    Parts,
    measured_axis,
    measured_pieces,
    regions_of,
)
from parframe.checking.reductions import Outcome, difference, hull_of
from parframe.checking.region_ranges import read
from parframe.checking.samples import COUNT, Numbers, numbers
from parframe.checking.tensor_types import sizes_of
from parframe.layout import Axis, Leaf, Region, region_length

Ranges: TypeAlias = tuple[tuple[tuple[str, Measured], ...], ...]
Symbols: TypeAlias = tuple[tuple[str, Numbers], ...]


@lru_cache(maxsize=50_000)
def gather(members: tuple[Concrete, ...], parts: tuple[Parts, ...], symbols: Symbols) -> Outcome:
    """The members' parts put together, as ``parts`` says."""
    first = members[0]
    fault = difference(members, ("pending",))
    if fault:
        return Outcome(first, fault)
    result, fault = _united(first, [member.ranges for member in members], symbols)
    outcome = attrs.evolve(first, ranges=result)
    if not fault:
        for number, (member, claimed) in enumerate(zip(members, parts, strict=True)):
            if not _agree(regions_of(first.axes, member.ranges, result, dict(symbols)), claimed):
                fault = f"the part of member {number} does not lie where it is put"
                break
    return Outcome(outcome, fault)


@lru_cache(maxsize=50_000)
def unite(members: tuple[Concrete, ...], dims: frozenset[str], symbols: Symbols) -> Outcome:
    """The members' parts put together along some dimensions, each once; all else is alike."""
    first = members[0]
    fault = difference(members, ("pending",))
    if fault:
        return Outcome(first, fault)
    beside = {
        tuple(tuple(one for one in own if one[0] not in dims) for own in member.ranges)
        for member in members
    }
    if len(beside) > 1:
        names = ", ".join(sorted(dims))
        return Outcome(first, f"the members' parts of {first.label} differ in more than {names}")
    result, fault = _united(first, [member.ranges for member in members], symbols, once=True)
    return Outcome(attrs.evolve(first, ranges=result), fault)


def _agree(expected: Parts, claimed: Parts) -> bool:
    """Whether two regions are the same at every sample; two empty ones are."""
    return all(
        len(mine) == len(theirs)
        and (
            mine == theirs
            or (any(_nothing(axis) for axis in mine) and any(_nothing(axis) for axis in theirs))
        )
        for mine, theirs in zip(expected, claimed, strict=True)
    )


def _nothing(axis: Region) -> bool:
    return region_length(axis) == 0


@lru_cache(maxsize=50_000)
def scatter(whole: Concrete, part: Parts, symbols: Symbols) -> Outcome:
    """A part of a tensor that a device holds."""
    found = _part(whole, part, symbols)
    if found is None:
        return Outcome(whole, f"a part of {whole.label} does not lie along its dimensions")
    return Outcome(attrs.evolve(whole, ranges=found))


def _part(whole: Concrete, part: Parts, symbols: Symbols) -> Ranges | None:
    """The ranges that a region of a device's tensor means."""
    bindings = dict(symbols)
    result = []
    for number, axis in enumerate(whole.axes):
        frame = whole.ranges[number]
        found = []
        for sample in range(COUNT):
            if len(part[sample]) != len(whole.axes):
                return None
            pieces = read(
                measured_axis(axis, bindings, sample),
                part[sample][number],
                measured_pieces(frame, sample),
            )
            if pieces is None:
                return None
            found.append(pieces)
        sizes = dict(_dims(axis, bindings))
        outer = dict(frame)
        own: list[tuple[str, Measured]] = []
        for dim in sorted({dim for pieces in found for dim in pieces}):
            ends = [
                (int(pieces[dim].start), int(pieces[dim].stop))
                if dim in pieces
                else (0, sizes[dim][sample])
                for sample, pieces in enumerate(found)
            ]
            piece = (tuple(start for start, _ in ends), tuple(stop for _, stop in ends))
            if not _inside(piece, outer.get(dim, ((0,) * COUNT, sizes[dim]))):
                return None
            if piece != ((0,) * COUNT, sizes[dim]):
                own.append((dim, piece))
        result.append(tuple(own))
    return tuple(result)


def _inside(piece: Measured, outer: Measured) -> bool:
    return all(
        start >= stop or (low <= start and stop <= high)
        for start, stop, low, high in zip(*piece, *outer, strict=True)
    )


@lru_cache(maxsize=20_000)
def exchange(
    members: tuple[Concrete, ...],
    sends: tuple[Parts, ...],
    parts: tuple[Parts, ...],
    symbols: Symbols,
) -> Outcome:
    """What members send to one of them, put together; ``sends`` is each member's part for it."""
    first = members[0]
    received = []
    for member, part in zip(members, sends, strict=True):
        ranges = _part(member, part, symbols)
        if ranges is None:
            return Outcome(first, f"a part of {first.label} lies across its dimensions")
        received.append(attrs.evolve(member, ranges=ranges))
    return gather(tuple(received), parts, symbols)


def _united(
    like: Concrete, members: Sequence[Ranges], symbols: Symbols, once: bool = False
) -> tuple[Ranges, str]:
    """The hull of parts of a tensor, and whether they leave a gap (or overlap, if ``once``)."""
    bindings = dict(symbols)
    sizes = [dict(_dims(axis, bindings)) for axis in like.axes]
    keys = sorted(
        {(axis, dim) for ranges in members for axis, own in enumerate(ranges) for dim, _ in own}
    )
    boxes = [
        [dict(ranges[a]).get(dim, ((0,) * COUNT, sizes[a][dim])) for a, dim in keys]
        for ranges in members
    ]
    fault = ""
    for path in paths(like.axes):
        chosen = [i for i, key in enumerate(keys) if key in path]
        if once and not chosen and len(members) > 1:
            fault = fault or f"every member has all of {like.label}"
        for sample in range(COUNT):
            here = tuple(
                tuple((box[i][0][sample], box[i][1][sample]) for i in chosen) for box in boxes
            )
            if chosen and (wrong := tiles(here, once)):
                names = ", ".join(keys[i][1] for i in chosen)
                fault = fault or f"the members' parts of {names} {wrong}"
    outer = dict(zip(keys, _hull_each(boxes), strict=True)) if keys else {}
    return tuple(
        tuple(
            (dim, outer[axis, dim])
            for a, dim in keys
            if a == axis and outer[axis, dim] != ((0,) * COUNT, sizes[axis][dim])
        )
        for axis in range(len(like.axes))
    ), fault


def _hull_each(boxes: Sequence[Sequence[Measured]]) -> list[Measured]:
    """The hull along every dimension alone."""
    return [hull_of([[box[i]] for box in boxes])[0] for i in range(len(boxes[0]))]


def _dims(axis: Axis, bindings: Mapping[str, Numbers]) -> Iterator[tuple[str, Numbers]]:
    for dim, size in sizes_of(axis).items():
        yield dim, numbers(size, bindings)


@lru_cache(maxsize=10_000)
def paths(axes: tuple[Axis, ...]) -> tuple[frozenset[tuple[int, str]], ...]:
    """The dimensions that an element has a place in, for each choice of segments."""
    choices = [
        [frozenset((number, dim) for dim in dims) for dims in _axis_paths(axis)]
        for number, axis in enumerate(axes)
    ]
    return tuple(dict.fromkeys(frozenset().union(*chosen) for chosen in every(*choices)))


def _axis_paths(axis: Axis) -> list[frozenset[str]]:
    result: list[frozenset[str]] = [frozenset()]
    for factor in axis:
        more = (
            [frozenset({factor.dim})]
            if isinstance(factor, Leaf)
            else [path for part in factor.parts for path in _axis_paths(part)]
        )
        result = [one | other for one in result for other in more]
    return result


def covers(like: Concrete, members: Sequence[Ranges], symbols: Symbols) -> str:
    """Why parts of a tensor are not all of it, or ``""``."""
    united, fault = _united(like, members, symbols)
    if fault:
        return fault
    missing = [dim for own in united for dim, _ in own]
    return f"no device has all of {', '.join(missing)}" if missing else ""
