"""What one device holds, in numbers: types, regions and tensors with its bindings put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

import attrs

from parframe.checking.samples import COUNT, Bindings, Numbers, numbers, symbol_names
from parframe.checking.tensor_types import Held, Place, sizes_of
from parframe.layout import (
    Axis,
    Join,
    Leaf,
    Pieces,
    Range,
    Region,
    Segments,
    Span,
    compact,
    region,
)
from parframe.sizes import Size

Measured: TypeAlias = tuple[Numbers, Numbers]
"""The start and the stop of a range, at every sample."""

MeasuredShare: TypeAlias = tuple[tuple[str, str, Numbers], Measured]
"""A contraction's source, dimension and size, and the range that a device summed over."""

Parts: TypeAlias = tuple[tuple[Region, ...], ...]
"""The regions of a tensor's axes, for every sample."""


@attrs.frozen
class Reducible:
    """A pending term in numbers; see ``Pending``."""

    term: int
    label: str
    reduction: str
    contributions: frozenset[tuple[MeasuredShare, ...]]


@attrs.frozen
class Concrete:
    """What one device holds, in numbers; see ``Held``."""

    axes: tuple[Axis, ...]
    ranges: tuple[tuple[tuple[str, Measured], ...], ...]
    done: int
    pending: tuple[Reducible, ...]
    label: str

    def range(self, axis: int, dim: str) -> Measured | None:
        """The range of a dimension; None where it is whole."""
        return dict(self.ranges[axis]).get(dim)


def _range_names(piece: Range) -> Iterable[str]:
    return (*symbol_names(piece.start), *symbol_names(piece.stop))


@lru_cache(maxsize=50_000)
def symbols_in(held: Held) -> tuple[str, ...]:
    """The symbols that what a device holds depends on."""
    names = {
        name for ranges in held.place.ranges for _, piece in ranges for name in _range_names(piece)
    }
    for ranges, axis in zip(held.place.ranges, held.place.axes, strict=True):
        for dim, _ in ranges:
            names.update(symbol_names(sizes_of(axis)[dim]))
    for term in held.pending:
        for contribution in term.contributions:
            for share in contribution:
                names.update((*_range_names(share.range), *symbol_names(share.size)))
    return tuple(sorted(names))


def concrete(held: Held, bindings: Bindings) -> Concrete:
    """What a device with these bindings holds."""
    return _concrete(held, tuple((name, bindings[name]) for name in symbols_in(held)))


@lru_cache(maxsize=100_000)
def _concrete(held: Held, values: tuple[tuple[str, Numbers], ...]) -> Concrete:
    bindings = dict(values)
    ranges = tuple(
        tuple(
            (dim, measured)
            for dim, piece in found
            if (measured := measure_range(piece, bindings))
            != ((0,) * COUNT, numbers(sizes_of(axis)[dim], bindings))
        )
        for axis, found in zip(held.place.axes, held.place.ranges, strict=True)
    )
    return Concrete(
        held.place.axes,
        ranges,
        held.done,
        tuple(
            Reducible(
                term.term,
                term.label,
                term.reduction,
                frozenset(
                    tuple(
                        (
                            (share.source, share.dim, numbers(share.size, bindings)),
                            measure_range(share.range, bindings),
                        )
                        for share in contribution
                    )
                    for contribution in term.contributions
                ),
            )
            for term in held.pending
        ),
        held.label,
    )


def measure_range(piece: Range, bindings: Bindings) -> Measured:
    """A range at every sample."""
    return numbers(piece.start, bindings), numbers(piece.stop, bindings)


def measure_regions(regions: tuple[Region, ...], bindings: Bindings) -> Parts:
    """The regions of a tensor's axes at every sample, as compact as can be."""
    names = sorted({name for parts in regions for name in _region_names(parts)})
    return _measure_regions(regions, tuple((name, bindings[name]) for name in names))


class Measurer:
    """Measures the parts of a group's members, which often are one object on all of them."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, ...]] = {}
        self._known: dict[tuple[int, tuple[Numbers, ...]], tuple[Parts, ...]] = {}
        self._kept: list[object] = []  # so that no other object gets its id

    def __call__(
        self, parts: tuple[tuple[Region, ...], ...], bindings: Bindings
    ) -> tuple[Parts, ...]:
        """The regions of every part at every sample."""
        if id(parts) not in self._names:
            names = {n for part in parts for region in part for n in _region_names(region)}
            self._names[id(parts)] = tuple(sorted(names))
            self._kept.append(parts)
        key = id(parts), tuple(bindings[name] for name in self._names[id(parts)])
        if key not in self._known:
            self._known[key] = tuple(measure_regions(part, bindings) for part in parts)
        return self._known[key]


@lru_cache(maxsize=50_000)
def _measure_regions(regions: tuple[Region, ...], values: tuple[tuple[str, Numbers], ...]) -> Parts:
    bindings = dict(values)
    return tuple(
        tuple(_measure_region(parts, bindings, sample) for parts in regions)
        for sample in range(COUNT)
    )


@lru_cache(maxsize=50_000)
def _region_names(parts: Region) -> tuple[str, ...]:
    names: set[str] = set()
    for part in parts:
        if isinstance(part, Join):
            names.update(name for inner in part.parts for name in _region_names(inner))
        else:
            for size in (part.size, part.start, part.stop):
                names.update(symbol_names(size))
    return tuple(sorted(names))


def _measure_region(parts: Region, bindings: Bindings, sample: int) -> Region:
    def at(size: Size) -> int:
        return numbers(size, bindings)[sample]

    return compact(
        tuple(
            Join(tuple(_measure_region(inner, bindings, sample) for inner in part.parts))
            if isinstance(part, Join)
            else Span(at(part.size), at(part.start), at(part.stop))
            for part in parts
        )
    )


def regions_of(
    axes: tuple[Axis, ...],
    ranges: tuple[tuple[tuple[str, Measured], ...], ...],
    frame: tuple[tuple[tuple[str, Measured], ...], ...],
    symbols: Bindings,
) -> Parts:
    """Where ranges lie in a tensor that holds a frame of them, at every sample."""
    return tuple(
        tuple(
            region(
                measured_axis(axis, symbols, sample),
                measured_pieces(own, sample),
                measured_pieces(outer, sample),
            )
            for axis, own, outer in zip(axes, ranges, frame, strict=True)
        )
        for sample in range(COUNT)
    )


def measured_axis(axis: Axis, symbols: Bindings, sample: int) -> Axis:
    """An axis with the sizes of its dimensions at one sample."""
    return tuple(
        Leaf(factor.dim, numbers(factor.size, symbols)[sample])
        if isinstance(factor, Leaf)
        else Segments(tuple(measured_axis(part, symbols, sample) for part in factor.parts))
        for factor in axis
    )


def measured_pieces(ranges: Iterable[tuple[str, Measured]], sample: int) -> Pieces:
    """Ranges as pieces at one sample."""
    return {dim: Range(start[sample], stop[sample]) for dim, (start, stop) in ranges}


def dimension_sizes(where: Place | Concrete, symbols: Bindings) -> list[Mapping[str, Numbers]]:
    """The size of every dimension of every axis, at every sample."""
    return [
        {dim: numbers(size, symbols) for dim, size in sizes_of(axis).items()} for axis in where.axes
    ]
