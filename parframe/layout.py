"""Tensor dims as products of named dimensions, and the part of a tensor dim that a device has.

A *tensor dim* is a product of factors, major to minor. A factor is a *leaf* (one dimension) or
*segments* (a concatenation of tensor dims, as in a fused qkv weight). *Pieces* are the ranges of
each dimension that a device has; a *region* is where they lie in a tensor dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from parframe.sizes import Size, product, simplify, sum_sizes


@attrs.frozen
class Leaf:
    """Dimension as a factor of a tensor dim."""

    dim: str
    size: Size


@attrs.frozen
class Segments:
    """Concatenation of tensor dims as a factor of a tensor dim."""

    parts: tuple[TensorDim, ...]

    @property
    def size(self) -> Size:
        """Size of all parts together."""
        return sum_sizes(dim_size(part) for part in self.parts)


Factor: TypeAlias = Leaf | Segments
TensorDim: TypeAlias = tuple[Factor, ...]


@attrs.frozen
class Range:
    """Half-open range of a dimension."""

    start: Size
    stop: Size

    @property
    def length(self) -> Size:
        """Number of elements."""
        return simplify(self.stop - self.start)


Pieces: TypeAlias = Mapping[str, Range]
"""Ranges of each dimension that a device has; an absent dimension is whole."""


@attrs.frozen
class Span:
    """Range of one factor: the elements from ``start`` to ``stop`` of ``size``."""

    size: Size
    start: Size
    stop: Size

    @property
    def whole(self) -> bool:
        """True if the span is all of the factor."""
        return self.start == 0 and self.stop == self.size


@attrs.frozen
class Join:
    """Concatenated factor: a region of each of its parts."""

    parts: tuple[Region, ...]


Region: TypeAlias = tuple[Span | Join, ...]
"""Part of a tensor dim: a product of spans and joins, major to minor."""


def dim_size(axis: TensorDim) -> Size:
    """Return the number of elements along a tensor dim."""
    return product(factor.size for factor in axis)


def leaves(axis: TensorDim) -> Iterator[Leaf]:
    """Yield every leaf of a tensor dim, also within segments."""
    for factor in axis:
        if isinstance(factor, Leaf):
            yield factor
        else:
            for part in factor.parts:
                yield from leaves(part)


def dims_of(axis: TensorDim) -> frozenset[str]:
    """Return the names of the dimensions in a tensor dim."""
    return frozenset(leaf.dim for leaf in leaves(axis))


def local_size(axis: TensorDim, pieces: Pieces) -> Size:
    """Return the number of elements along a tensor dim on a device with these pieces."""
    return product(
        (pieces[factor.dim].length if factor.dim in pieces else factor.size)
        if isinstance(factor, Leaf)
        else sum_sizes(local_size(part, pieces) for part in factor.parts)
        for factor in axis
    )


def region_of(axis: TensorDim, pieces: Pieces, frame: Pieces) -> Region:
    """Return where pieces of a tensor dim lie in a device's tensor.

    The device's tensor has the pieces ``frame``; with an empty ``frame`` it is the whole tensor.
    """
    parts: list[Span | Join] = []
    for factor in axis:
        if isinstance(factor, Segments):
            parts.append(Join(tuple(region_of(part, pieces, frame) for part in factor.parts)))
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
    return compact_region(tuple(parts))


def compact_region(parts: Region) -> Region:
    """Return the same region with as few factors as possible."""
    result: list[Span | Join] = []
    for part in parts:
        if isinstance(part, Join):
            sizes = [region_size(inner) for inner in part.parts]
            if all(is_whole(inner) for inner in part.parts):
                part = Span(sum_sizes(sizes), 0, sum_sizes(sizes))
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
    """Return whether a region is all of its tensor dim."""
    return all(
        part.whole if isinstance(part, Span) else all(is_whole(inner) for inner in part.parts)
        for part in parts
    )


def region_size(parts: Region) -> Size:
    """Return the number of elements of the tensor dim that a region is part of."""
    return product(
        part.size
        if isinstance(part, Span)
        else sum_sizes(region_size(inner) for inner in part.parts)
        for part in parts
    )


def region_length(parts: Region) -> Size:
    """Return the number of elements that a region selects."""
    return product(
        simplify(part.stop - part.start)
        if isinstance(part, Span)
        else sum_sizes(region_length(inner) for inner in part.parts)
        for part in parts
    )


def region_runs(parts: Region) -> tuple[tuple[int, int], ...]:
    """Return the contiguous runs ``(start, stop)`` that a region of numbers selects."""
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
