"""Cuts: which dimensions are split over which mesh axes, and what every device gets of them.

A cut splits a chain of dimensions over the devices of some mesh axes: the first dimension as far
as it goes, then the next (heads: the key-value heads, then the group of query heads of each).
What a device gets is a rectangle of the chain; the rectangles of all devices tile it.

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
from parframe.sizes import Size, floordiv, offset, product, simplify
from parframe.strategy import Placing, Split

STAGES = "layers"
"""The name that stands for the order of operators: it is cut into pipeline stages."""


@attrs.frozen
class Cut:
    """A chain of dimensions split over the devices of some mesh axes.

    ``rank`` numbers the cuts; ``priority`` orders those that want the same axis (cuts of one name
    have the same): the lowest wins. ``outer`` is the cut that it lies within. ``exchanges`` are the
    ways in which the devices of its axes exchange, where an operator could also gather.
    """

    rank: int
    priority: tuple[int, ...]
    axes: tuple[str, ...]
    chain: tuple[str, ...]
    sizes: tuple[Size, ...]
    degree: int
    outer: Cut | None = None
    exchanges: frozenset[str] = frozenset()

    def within(self, held: Pieces) -> tuple[Pieces, ...]:
        """What every member of a group holds of the chain's dimensions.

        Parameters
        ----------
        held
            What the group has together of dimensions; all of those that are absent.
        """
        frame = [
            held.get(dim, Range(0, size)) for dim, size in zip(self.chain, self.sizes, strict=True)
        ]
        lengths = tuple(outer.length for outer in frame)
        return tuple(
            {
                dim: Range(simplify(outer.start + own.start), simplify(outer.start + own.stop))
                for dim, outer, own in zip(
                    self.chain, frame, _rectangle(lengths, self.degree, member), strict=True
                )
            }
            for member in range(self.degree)
        )

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
        return frozenset(
            dim
            for dim in self.chain
            if any(len({piece[dim] for piece in group}) > 1 for group in self.groups)
        )

    def piece(self, mesh: Mesh, rank: int) -> Pieces:
        """What a rank holds of the chain's dimensions."""
        group, cut = 0, self.outer
        scale = 1
        while cut is not None:
            group += scale * mesh.index(rank, cut.axes)
            scale *= cut.degree
            cut = cut.outer
        return self.groups[group][mesh.index(rank, self.axes)]


def split(size: Size, parts: int, part: int) -> Range:
    """Part number ``part`` of ``size`` elements, as even as can be, larger parts first."""
    return Range(_boundary(size, parts, part), _boundary(size, parts, part + 1))


def _boundary(size: Size, parts: int, part: int) -> Size:
    """Where part number ``part`` begins: the first ``size % parts`` parts have one more."""
    if part == 0 or part == parts:
        return size if part else 0
    if isinstance(size, int):
        return part * (size // parts) + min(part, size % parts)
    # written as it is: sympy would try for long to tell which of the two is less
    rest = sympy.Min(part, sympy.Mod(size, parts), evaluate=False)
    return simplify(part * floordiv(size, parts) + rest)


def _rectangle(sizes: tuple[Size, ...], parts: int, part: int) -> list[Range]:
    head, rest = sizes[0], sizes[1:]
    if head == 0:
        return [Range(0, 0) for _ in sizes]
    if not isinstance(head, int) or parts <= head:
        return [split(head, parts, part), *(Range(0, size) for size in rest)]
    if not rest:
        return [Range(part, part + 1) if part < head else Range(0, 0)]
    for value in range(head):
        share = split(parts, head, value)
        start, stop = int(share.start), int(share.stop)
        if start <= part < stop:
            inner = _rectangle(rest, stop - start, part - start)
            if any(span.length == 0 for span in inner):
                return [Range(0, 0), *(Range(0, 0) for _ in rest)]
            return [Range(value, value + 1), *inner]
    raise ParframeError("internal", "cuts", f"part {part} of {parts} has no place", "report it")


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
        for chain in chains:
            if not any(dim in cut.chain for cut in found for dim in chain):
                given = set(chain) <= dimensions.given
                priority = (given, not entry.required, position)
                found.extend(_nested(entry, chain, priority, len(found), dimensions, placing))
    for axis, names in served.items():
        if placing.mesh.degree(axis) == 1 or STAGES in names:
            continue
        if not any(axis in cut.axes for cut in found):
            raise _nothing(axis, names, dimensions)
    return tuple(found)


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
    for axes in _axis_groups(entry, placing):
        degree = product(placing.mesh.degree(axis) for axis in axes)
        wanted = placing.exchanging(axes)
        outer = Cut(rank, priority, axes, chain, sizes, int(degree), outer, wanted)
        yield outer
        rank += 1


def _axis_groups(entry: Split, placing: Placing) -> Iterator[tuple[str, ...]]:
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
