"""How an axis of a tensor is built from dimensions, and which part of it a device holds.

An *axis* is a product of factors, major to minor. A factor is a *leaf* (one dimension) or
*segments* (a concatenation of axes, as in a fused qkv weight). *Pieces* say which range of each
dimension a device holds; a *region* says where that lies in a tensor axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from parframe.sizes import Size, product, simplify, total


@attrs.frozen
class Leaf:
    """One dimension as a factor of an axis."""

    dim: str
    size: Size


@attrs.frozen
class Segments:
    """A concatenation of axes as a factor of an axis."""

    parts: tuple[Axis, ...]

    @property
    def size(self) -> Size:
        """The size of all parts together."""
        return total(axis_size(part) for part in self.parts)


Factor: TypeAlias = Leaf | Segments
Axis: TypeAlias = tuple[Factor, ...]


@attrs.frozen
class Range:
    """A half-open range of a dimension."""

    start: Size
    stop: Size

    @property
    def length(self) -> Size:
        """How many elements."""
        return simplify(self.stop - self.start)


Pieces: TypeAlias = Mapping[str, Range]
"""What a device holds of each dimension; a dimension that is absent is whole."""


@attrs.frozen
class Span:
    """A range of one factor: ``size`` elements, of which ``start`` to ``stop`` are meant."""

    size: Size
    start: Size
    stop: Size

    @property
    def whole(self) -> bool:
        """Whether it is all of the factor."""
        return self.start == 0 and self.stop == self.size


@attrs.frozen
class Join:
    """A concatenated factor: a region of each of its parts."""

    parts: tuple[Region, ...]


Region: TypeAlias = tuple[Span | Join, ...]
"""A part of an axis: a product of spans and joins, major to minor."""


def axis_size(axis: Axis) -> Size:
    """The number of elements along an axis."""
    return product(factor.size for factor in axis)


def leaves(axis: Axis) -> Iterator[Leaf]:
    """Every leaf of an axis, also within segments."""
    for factor in axis:
        if isinstance(factor, Leaf):
            yield factor
        else:
            for part in factor.parts:
                yield from leaves(part)


def dims_of(axis: Axis) -> frozenset[str]:
    """The names of the dimensions in an axis."""
    return frozenset(leaf.dim for leaf in leaves(axis))


def local_size(axis: Axis, pieces: Pieces) -> Size:
    """The number of elements that a device with these pieces holds along the axis."""
    return product(
        (pieces[factor.dim].length if factor.dim in pieces else factor.size)
        if isinstance(factor, Leaf)
        else total(local_size(part, pieces) for part in factor.parts)
        for factor in axis
    )


def region(axis: Axis, pieces: Pieces, frame: Pieces) -> Region:
    """Where ``pieces`` of an axis lie within a device's tensor that holds ``frame`` of it.

    With an empty ``frame`` the positions are those of the whole tensor.
    """
    parts: list[Span | Join] = []
    for factor in axis:
        if isinstance(factor, Segments):
            parts.append(Join(tuple(region(part, pieces, frame) for part in factor.parts)))
            continue
        outer = frame.get(factor.dim, Range(0, factor.size))
        inner = pieces.get(factor.dim, outer)
        parts.append(
            Span(
                outer.length,
                simplify(inner.start - outer.start),
                simplify(inner.stop - outer.start),
            )
        )
    return compact(tuple(parts))


def compact(parts: Region) -> Region:
    """The same region with as few factors as can be."""
    result: list[Span | Join] = []
    for part in parts:
        if isinstance(part, Join):
            sizes = [region_size(inner) for inner in part.parts]
            if all(is_whole(inner) for inner in part.parts):
                part = Span(total(sizes), 0, total(sizes))
        if isinstance(part, Span) and part.size == 1 and part.whole:
            continue
        if result and isinstance(part, Span) and part.whole and isinstance(result[-1], Span):
            last = result[-1]
            scale = part.size
            part = Span(
                simplify(last.size * scale),
                simplify(last.start * scale),
                simplify(last.stop * scale),
            )
            result.pop()
        result.append(part)
    return tuple(result)


def is_whole(parts: Region) -> bool:
    """Whether a region is all of its axis."""
    return all(
        part.whole if isinstance(part, Span) else all(is_whole(inner) for inner in part.parts)
        for part in parts
    )


def region_size(parts: Region) -> Size:
    """The number of elements of the axis that a region is part of."""
    return product(
        part.size if isinstance(part, Span) else total(region_size(inner) for inner in part.parts)
        for part in parts
    )


def region_length(parts: Region) -> Size:
    """The number of elements that a region selects."""
    return product(
        simplify(part.stop - part.start)
        if isinstance(part, Span)
        else total(region_length(inner) for inner in part.parts)
        for part in parts
    )


def runs(parts: Region) -> tuple[tuple[int, int], ...]:
    """The contiguous runs ``(start, stop)`` along the axis that a region of numbers selects."""
    merged: list[tuple[int, int]] = []
    for start, stop in _runs(parts):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def _runs(parts: Region) -> Iterator[tuple[int, int]]:
    if not parts:
        yield (0, 1)
        return
    head, rest = parts[0], parts[1:]
    inner: Any = region_size(rest)
    if isinstance(head, Join):
        at: Any = 0
        for part in head.parts:
            for start, stop in _runs(part):
                yield from _scaled(start + at, stop + at, rest, inner)
            at += region_size(part)
        return
    yield from _scaled(head.start, head.stop, rest, inner)


def _scaled(start: Any, stop: Any, rest: Region, inner: Any) -> Iterator[tuple[int, int]]:
    if start == stop:
        return
    if is_whole(rest):
        yield (start * inner, stop * inner)
        return
    for position in range(start, stop):
        for low, high in _runs(rest):
            yield (position * inner + low, position * inner + high)
