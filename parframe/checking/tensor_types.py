"""What a device holds under a name: which sum of the model's values, and which part of it.

A value is known by the *terms* it is the sum of. Terms that are complete are kept as one number
(the sum of their marks); terms that are still to be reduced are listed with what this device has
contributed. Two values are the same if their terms are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TypeAlias

import attrs

from parframe.layout import Axis, Leaf, Pieces, Range, local_size
from parframe.sizes import Size

Ranges: TypeAlias = tuple[tuple[str, Range], ...]
"""The dimensions of one axis that are not whole, sorted, each with its range."""

_MODULUS = 1 << 127


@lru_cache(maxsize=200_000)
def mark(name: str) -> int:
    """A number that stands for a term of a sum."""
    return int.from_bytes(blake2b(name.encode(), digest_size=15).digest(), "big")


def add_marks(*marks: int) -> int:
    """The number that stands for a sum of terms."""
    return sum(marks) % _MODULUS


@attrs.frozen(eq=False)
class Place:
    """Which part of a tensor: the dimensions of its axes and their ranges.

    Made by ``place`` alone, so that equal ones are the same object.
    """

    axes: tuple[Axis, ...]
    ranges: tuple[Ranges, ...]

    def pieces(self, axis: int) -> Pieces:
        """The ranges along one axis."""
        return dict(self.ranges[axis])

    @cached_property
    def shape(self) -> tuple[Size, ...]:
        """The shape of the device's tensor."""
        return tuple(
            local_size(axis, dict(ranges))
            for axis, ranges in zip(self.axes, self.ranges, strict=True)
        )

    @property
    def whole(self) -> bool:
        """Whether it is all of the tensor."""
        return not any(self.ranges)


_places: dict[tuple[tuple[Axis, ...], tuple[Ranges, ...]], Place] = {}


def place(axes: tuple[Axis, ...], pieces: Iterable[Pieces]) -> Place:
    """The part of a tensor with these axes and, for each of them, these pieces."""
    ranges = tuple(
        tuple(
            (dim, found[dim])
            for dim, size in sorted(_sizes(axis).items())
            if dim in found and not _is_whole(found[dim], size)
        )
        for axis, found in zip(axes, pieces, strict=True)
    )
    key = (axes, ranges)
    if key not in _places:
        if len(_places) > 200_000:
            _places.clear()
        _places[key] = Place(axes, ranges)
    return _places[key]


def _is_whole(piece: Range, size: Size) -> bool:
    return piece.start == 0 and bool(piece.stop == size)


@lru_cache(maxsize=50_000)
def _sizes(axis: Axis) -> Mapping[str, Size]:
    """The dimensions of an axis with their sizes."""
    found: dict[str, Size] = {}
    for factor in axis:
        if isinstance(factor, Leaf):
            found[factor.dim] = factor.size
        else:
            for part in factor.parts:
                found.update(_sizes(part))
    return found


def sizes_of(axis: Axis) -> Mapping[str, Size]:
    """The dimensions of an axis with their sizes."""
    return _sizes(axis)


@attrs.frozen
class Share:
    """The range of a contracted dimension that a contribution was summed over.

    ``source`` names the contraction: shares of one dimension in two contractions are different.
    """

    source: str
    dim: str
    size: Size
    range: Range


Contribution: TypeAlias = tuple[Share, ...]
"""A product of shares, sorted; the devices' products must tile the whole."""


@attrs.frozen
class Pending:
    """A term of which devices hold contributions that are still to be reduced.

    It is complete when, for each of ``contributions``, the devices' products of shares are.
    """

    term: int
    label: str
    reduction: str
    contributions: frozenset[Contribution]


@attrs.frozen
class Held:
    """What a device holds: a sum of complete and pending terms, and where it lies in the whole."""

    place: Place
    done: int
    pending: tuple[Pending, ...] = ()
    label: str = ""

    @property
    def total(self) -> int:
        """The number that stands for the sum of all terms, once they are complete."""
        return add_marks(self.done, *(term.term for term in self.pending))


def merge(left: tuple[Pending, ...], right: tuple[Pending, ...]) -> tuple[Pending, ...]:
    """The pending terms of a sum, in a fixed order."""
    return tuple(sorted((*left, *right), key=lambda term: (term.term, term.label)))
