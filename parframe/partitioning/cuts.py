"""Cuts: which dimensions are split over which mesh axes, and what every device gets of them.

A cut splits a chain of dimensions over the devices of some mesh axes: the first dimension as far
as it goes, then the next (heads: the key-value heads, then the group of query heads of each).
What a device gets is a rectangle of the chain; the rectangles of all devices tile it. Devices get
equal parts, or parts in the ratio that the mesh gives its unequal devices.

A name that is split over several mesh axes is one cut of all of them, unless another name lies on
some of the axes only: then it is cuts one within the other, so that where the other name takes an
axis (experts that of expert parallelism), the outer cuts stay (the batch over data parallelism).
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
    """A chain of dimensions split over the devices of some mesh axes.

    ``rank`` numbers the cuts; ``priority`` orders those that want the same axis (cuts of one name
    have the same): the lowest wins. What the model is given yields to what it has, what strategies
    offer to what is required, and then the order of the placing counts. ``outer`` is the cut that
    it lies within. ``exchanges`` are the ways in which the devices of its axes exchange, where an
    operator could also gather. Where it is ``mirrored``, the chain is the two halves of a
    dimension: each device has a part of either, that of the second counted from its end.
    """

    rank: int
    priority: tuple[int, ...]
    axes: tuple[str, ...]
    chain: tuple[str, ...]
    sizes: tuple[Size, ...]
    shares: tuple[int, ...]
    outer: Cut | None = None
    exchanges: frozenset[str] = frozenset()
    mirrored: bool = False

    @property
    def degree(self) -> int:
        """The number of members of a group."""
        return len(self.shares)

    @property
    def split(self) -> int:
        """The place of the split that it belongs to among those of the placing."""
        return self.priority[-1]

    def within(self, held: Pieces) -> tuple[Pieces, ...]:
        """What every member of a group holds of the chain's dimensions.

        Parameters
        ----------
        held
            What the group has together of dimensions; all of those that are absent.
        """
        frame = self._frame(held)
        lengths = tuple(outer.length for outer in frame)
        parts = (mirrored if self.mirrored else rectangles)(lengths, self.shares)
        return tuple(self._inside(frame, rectangle) for rectangle in parts)

    def part(self, held: Pieces, member: int) -> Pieces:
        """What one member of a group holds: its place in what `within` gives for all."""
        frame = self._frame(held)
        lengths = tuple(outer.length for outer in frame)
        if self.mirrored:
            return self._inside(frame, mirrored(lengths, self.shares)[member])
        return self._inside(frame, rectangle(lengths, self.shares, member))

    def _frame(self, held: Pieces) -> list[Range]:
        return [
            held.get(dim, Range(0, size)) for dim, size in zip(self.chain, self.sizes, strict=True)
        ]

    def _inside(self, frame: list[Range], rectangle: tuple[Range, ...]) -> Pieces:
        return {
            dim: Range(simplify(outer.start + own.start), simplify(outer.start + own.stop))
            for dim, outer, own in zip(self.chain, frame, rectangle, strict=True)
        }

    @cached_property
    def groups(self) -> tuple[tuple[Pieces, ...], ...]:
        """For every group, what its members hold: one group for each part of the outer cut."""
        frames: Iterable[Pieces] = ({},)
        if self.outer is not None:
            frames = (piece for group in self.outer.groups for piece in group)
        return tuple(self.within(frame) for frame in frames)

    @cached_property
    def uneven(self) -> frozenset[str]:
        """The chain's dimensions of which members of a group hold different parts."""
        if not self.mirrored and not isinstance(self.sizes[0], int):
            return frozenset(self.chain[:1] if self.degree > 1 else ())  # as rectangles are then
        return frozenset(
            dim
            for dim in self.chain
            if any(len({piece[dim] for piece in group}) > 1 for group in self.groups)
        )

    @cached_property
    def tiling(self) -> tuple[frozenset[str], ...]:
        """Dimensions whose parts tile what has any of them, for every set of them."""
        if self.mirrored:
            return (self.uneven,)
        return tuple(frozenset({dim}) for dim in sorted(self.uneven))

    def piece(self, mesh: Mesh, rank: int) -> Pieces:
        """What a rank holds of the chain's dimensions."""
        held = {} if self.outer is None else self.outer.piece(mesh, rank)
        return self.part(held, mesh.index(rank, self.axes))


def find_cuts(dimensions: Dimensions, placing: Placing) -> tuple[Cut, ...]:
    """The cuts that a placing makes of these dimensions, in order of their rank.

    Raises
    ------
    ParframeError
        If a name is none of the model's, or an axis finds nothing to split.
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
    """Refuse devices that would get nothing of a chain."""
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
    """The cuts of one chain, each within the one before."""
    sizes = tuple(dimensions.dimensions[dim].size for dim in chain)
    outer: Cut | None = None
    for axes in axis_groups(entry, placing):
        shares, wanted = placing.mesh.ratio(axes), placing.forms_along(axes)
        halves = chain in dimensions.halves
        outer = Cut(rank, priority, axes, chain, sizes, shares, outer, wanted, halves)
        yield outer
        rank += 1


def axis_groups(entry: Split, placing: Placing) -> Iterator[tuple[str, ...]]:
    """The axes of a split, those together that the same other names lie on.

    Axes that were not given in an order by the user come the last, and so innermost, that more
    other names want.
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


def start_symbol(dim: str) -> sympy.Symbol:
    """The symbol for where a device's piece of a dimension begins."""
    return offset(re.sub(r"\W", "_", dim) + "_start")


def here_symbol(dim: str) -> sympy.Symbol:
    """The symbol for how much of a symbolic dimension a device holds."""
    return offset(re.sub(r"\W", "_", dim) + "_here")


def _label(cut: Cut, dim: str) -> str:
    """What a cut's piece of a dimension is called: of an inner cut also by its axes."""
    return dim if cut.outer is None else ".".join((dim, *cut.axes))


@attrs.frozen
class Shape:
    """What devices of one shape hold of every cut dimension; where it starts is a symbol."""

    pieces: tuple[Mapping[str, Range], ...]

    def of(self, cuts: frozenset[int]) -> dict[str, Range]:
        """The pieces of some cuts."""
        return {dim: piece for cut in sorted(cuts) for dim, piece in self.pieces[cut].items()}


def shape_of(cuts: tuple[Cut, ...], mesh: Mesh, rank: int) -> Shape:
    """The shape of a rank's pieces, with symbols for what differs between equal shapes."""
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
    """The values of a rank's symbols."""
    found: dict[str, Size] = {}
    for cut in cuts:
        for dim, piece in _changed(cut, mesh, rank):
            shape = _symbolic(cut, dim, piece)
            if not isinstance(shape.start, int):
                found[start_symbol(_label(cut, dim)).name] = piece.start
            if not isinstance(shape.length, int):
                found[here_symbol(_label(cut, dim)).name] = piece.length
    return found


def _changed(cut: Cut, mesh: Mesh, rank: int) -> Iterator[tuple[str, Range]]:
    """A rank's pieces of the dimensions that a cut splits; of an inner one not all of its chain."""
    for dim, piece in cut.piece(mesh, rank).items():
        if cut.outer is None or dim in cut.uneven:
            yield dim, piece


def _whole(cut: Cut, dim: str, piece: Range) -> bool:
    return piece.start == 0 and piece.stop == cut.sizes[cut.chain.index(dim)]


def _symbolic(cut: Cut, dim: str, piece: Range) -> Range:
    if _whole(cut, dim, piece) or piece.length == 0:
        return piece
    label = _label(cut, dim)
    start = start_symbol(label)
    length = piece.length if isinstance(piece.length, int) else here_symbol(label)
    return Range(start, simplify(start + length))
