"""Cuts: dimensions split over mesh axes, and the part of every device.

A cut splits a chain of dimensions over the devices of some mesh axes: the first dimension as far
as possible, then the next (for heads, the key-value heads, then the query heads of each). The
part of a device is a rectangle of the chain; the rectangles of all devices tile it. Parts are
equal, or in the ratio of the shares of unequal devices.

A name that is split over several mesh axes is one cut over all of them, unless another name is
split over some of these axes only. Then it is several nested cuts, so that an operator that uses an
axis for the other name (experts on the axis of expert parallelism) keeps the outer cuts (the batch
on the axis of data parallelism).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby

import attrs
import sympy

from parframe.dims import Dimensions
from parframe.errors import ParframeError, nearest
from parframe.layout import Pieces, Range
from parframe.mesh import Mesh
from parframe.partitioning.chain_parts import mirrored, rectangle, rectangles
from parframe.sizes import Size, offset, product, simplify
from parframe.strategy import STAGES, Placing, Split


@attrs.frozen
class Cut:
    """Chain of dimensions split over the devices of some mesh axes.

    ``rank`` numbers the cuts; ``priority`` orders those that want the same axis (cuts of one name
    have the same): the lowest wins. What the model is given yields to what it has, what strategies
    offer to what is required, and then the order of the placing counts. ``outer`` is the cut that
    it lies within. ``distributed_forms`` are the forms that operators use over its axes instead of
    a gather. Where it is ``mirrored``, the chain is the two halves of a dimension: each device has
    a part of either, that of the second counted from its end.
    """

    rank: int
    priority: tuple[int, ...]
    axes: tuple[str, ...]
    chain: tuple[str, ...]
    sizes: tuple[Size, ...]
    shares: tuple[int, ...]
    outer: Cut | None = None
    distributed_forms: frozenset[str] = frozenset()
    mirrored: bool = False

    @property
    def degree(self) -> int:
        """Number of ranks of a group."""
        return len(self.shares)

    @property
    def split(self) -> int:
        """Position of its split among those of the placing."""
        return self.priority[-1]

    def within(self, given: Pieces) -> tuple[Pieces, ...]:
        """Return the part of the chain for every rank of a group.

        ``given`` are the ranges of dimensions that the group has together; absent ones are whole.
        """
        frame = self._frame(given)
        lengths = tuple(outer.length for outer in frame)
        parts = (mirrored if self.mirrored else rectangles)(lengths, self.shares)
        return tuple(self._inside(frame, rectangle) for rectangle in parts)

    def part(self, given: Pieces, index: int) -> Pieces:
        """Return the part of the chain for one rank of a group."""
        frame = self._frame(given)
        lengths = tuple(outer.length for outer in frame)
        if self.mirrored:
            return self._inside(frame, mirrored(lengths, self.shares)[index])
        return self._inside(frame, rectangle(lengths, self.shares, index))

    def _frame(self, given: Pieces) -> list[Range]:
        return [
            given.get(dim, Range(0, size)) for dim, size in zip(self.chain, self.sizes, strict=True)
        ]

    def _inside(self, frame: list[Range], rectangle: tuple[Range, ...]) -> Pieces:
        return {
            dim: Range(simplify(outer.start + own.start), simplify(outer.start + own.stop))
            for dim, outer, own in zip(self.chain, frame, rectangle, strict=True)
        }

    @cached_property
    def groups(self) -> tuple[tuple[Pieces, ...], ...]:
        """Parts of the ranks of every group; there is a group for each part of the outer cut."""
        frames: Iterable[Pieces] = ({},)
        if self.outer is not None:
            frames = (piece for group in self.outer.groups for piece in group)
        return tuple(self.within(frame) for frame in frames)

    @cached_property
    def uneven(self) -> frozenset[str]:
        """Dimensions of the chain of which the ranks of a group have different parts."""
        if not self.mirrored and not isinstance(self.sizes[0], int):
            return frozenset(self.chain[:1] if self.degree > 1 else ())  # as rectangles are then
        return frozenset(
            dim
            for dim in self.chain
            if any(len({piece[dim] for piece in group}) > 1 for group in self.groups)
        )

    @cached_property
    def tiling(self) -> tuple[frozenset[str], ...]:
        """Sets of dimensions whose parts tile every tensor dim that has one of them."""
        if self.mirrored:
            return (self.uneven,)
        return tuple(frozenset({dim}) for dim in sorted(self.uneven))

    def piece(self, mesh: Mesh, rank: int) -> Pieces:
        """Return the part of the chain for a rank of a mesh."""
        given = {} if self.outer is None else self.outer.piece(mesh, rank)
        return self.part(given, mesh.index(rank, self.axes))


def find_cuts(dimensions: Dimensions, placing: Placing) -> tuple[Cut, ...]:
    """Return the cuts of a placing, in order of their number.

    Raise an error if a name is none of the model's, or an axis finds nothing to split.
    """
    found: list[Cut] = []
    served: dict[str, list[str]] = {}
    for position, entry in enumerate(placing.splits):
        for axis in entry.axes:
            served.setdefault(axis, []).append(entry.name)
        if entry.name == STAGES or all(placing.mesh.degree(axis) == 1 for axis in entry.axes):
            continue
        chains = dimensions.targets(entry.name)
        if entry.required and not chains:
            raise _nothing(",".join(entry.axes), [entry.name], dimensions)
        for chain in chains if entry.no_idle else ():
            _check_filled(entry, chain, dimensions, placing)
        for chain in chains:
            if not any(dim in cut.chain for cut in found for dim in chain):
                given = set(chain) <= dimensions.input_dims
                priority = (given, not entry.required, position)
                found.extend(_nested(entry, chain, priority, len(found), dimensions, placing))
    for axis, names in served.items():
        if placing.mesh.degree(axis) == 1 or STAGES in names:
            continue
        if not any(axis in cut.axes for cut in found):
            raise _nothing(axis, names, dimensions)
    return tuple(found)


def _check_filled(
    entry: Split, chain: tuple[str, ...], dimensions: Dimensions, placing: Placing
) -> None:
    """Refuse devices that would get no part of a chain."""
    size = product(dimensions.dimensions[dim].size for dim in chain)
    degree = product(placing.mesh.degree(axis) for axis in entry.axes)
    if isinstance(size, int) and isinstance(degree, int) and degree > size:
        raise ParframeError(
            "partition",
            f"axis {', '.join(entry.axes)}",
            f"{degree} devices for {size} {entry.name}",
            f"use at most {size}, or set the strategy's option that lets devices be idle",
        )


def _nested(
    entry: Split,
    chain: tuple[str, ...],
    priority: tuple[int, ...],
    rank: int,
    dimensions: Dimensions,
    placing: Placing,
) -> Iterator[Cut]:
    """Yield the cuts of one chain, each within the one before."""
    sizes = tuple(dimensions.dimensions[dim].size for dim in chain)
    outer: Cut | None = None
    for axes in axis_groups(entry, placing):
        shares, wanted = placing.mesh.ratio(axes), placing.forms_along(axes)
        halves = chain in dimensions.halves
        outer = Cut(rank, priority, axes, chain, sizes, shares, outer, wanted, halves)
        yield outer
        rank += 1


def axis_groups(entry: Split, placing: Placing) -> Iterator[tuple[str, ...]]:
    """Yield the axes of a split, grouped by the other names that are split over them.

    Unless the user gives an order, axes that more other names are split over come last, and so are
    innermost.
    """
    wanted = {
        axis: frozenset(
            other.name
            for other in placing.splits
            if axis in other.axes and not set(entry.axes) <= set(other.axes)
        )
        for axis in entry.axes
        if placing.mesh.degree(axis) > 1
    }
    order = list(wanted)
    if not entry.required:
        order.sort(key=lambda axis: len(wanted[axis]))
    for _, axes in groupby(order, key=wanted.__getitem__):
        yield tuple(axes)


def _nothing(axis: str, names: list[str], dimensions: Dimensions) -> ParframeError:
    known = sorted({*dimensions.chains, *dimensions.dimensions})
    close = [word for name in names if (word := nearest(name, known)) is not None]
    return ParframeError(
        "partition",
        f"axis {axis}",
        f"the model has no dimension {' or '.join(map(repr, names))} to split",
        f"its dimensions are {', '.join(close or sorted(dimensions.chains) or known[:8])}",
    )


def _symbol(cut: Cut, dim: str, kind: str) -> sympy.Symbol:
    """Return the symbol of a device's part of a dimension; an inner cut's name has its axes.

    ``kind`` is ``start``, or ``here`` for the length of a part of a symbolic dimension.
    """
    name = dim if cut.outer is None else ".".join((dim, *cut.axes))
    return offset(re.sub(r"\W", "_", name) + f"_{kind}")


@attrs.frozen
class Shape:
    """Parts of every cut dimension for devices of one shape; their starts are symbols."""

    pieces: tuple[Mapping[str, Range], ...]

    def of(self, cuts: frozenset[int]) -> dict[str, Range]:
        """Return the parts of some cuts."""
        return {dim: piece for cut in sorted(cuts) for dim, piece in self.pieces[cut].items()}


def shape_of(cuts: tuple[Cut, ...], mesh: Mesh, rank: int) -> Shape:
    """Return the shape of a rank's parts, with symbols for values that differ between ranks."""
    return Shape(
        tuple(
            {
                dim: _symbolic(cut, dim, piece)
                for dim, piece in _changed(cut, mesh, rank)
                if not _whole(cut, dim, piece)
            }
            for cut in cuts
        )
    )


def bindings_of(cuts: tuple[Cut, ...], mesh: Mesh, rank: int) -> dict[str, Size]:
    """Return the values of a rank's symbols."""
    found: dict[str, Size] = {}
    for cut in cuts:
        for dim, piece in _changed(cut, mesh, rank):
            shape = _symbolic(cut, dim, piece)
            if not isinstance(shape.start, int):
                found[_symbol(cut, dim, "start").name] = piece.start
            if not isinstance(shape.length, int):
                found[_symbol(cut, dim, "here").name] = piece.length
    return found


def _changed(cut: Cut, mesh: Mesh, rank: int) -> Iterator[tuple[str, Range]]:
    """Yield a rank's parts of the dimensions that a cut splits."""
    for dim, piece in cut.piece(mesh, rank).items():
        if cut.outer is None or dim in cut.uneven:
            yield dim, piece


def _whole(cut: Cut, dim: str, piece: Range) -> bool:
    return piece.start == 0 and piece.stop == cut.sizes[cut.chain.index(dim)]


def _symbolic(cut: Cut, dim: str, piece: Range) -> Range:
    if _whole(cut, dim, piece) or piece.length == 0:
        return piece
    start = _symbol(cut, dim, "start")
    length = piece.length if isinstance(piece.length, int) else _symbol(cut, dim, "here")
    return Range(start, simplify(start + length))
