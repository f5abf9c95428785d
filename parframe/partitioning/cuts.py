"""Cuts: which dimensions are split over which mesh axes, and what every device gets of them.

A cut splits a chain of dimensions over the devices of some mesh axes: the first dimension as far
as it goes, then the next (heads: the key-value heads, then the group of query heads of each).
What a device gets is a rectangle of the chain; the rectangles of all devices tile it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

import attrs
import sympy

from parframe.dims import Dimensions
from parframe.errors import ParframeError, nearest
from parframe.layout import Pieces, Range
from parframe.mesh import Mesh
from parframe.sizes import Size, floordiv, offset, product, simplify
from parframe.strategy import Placing

STAGES = "layers"
"""The name that stands for the order of operators: it is cut into pipeline stages."""


@attrs.frozen
class Cut:
    """A chain of dimensions split over the devices of some mesh axes.

    ``rank`` numbers the cuts; ``priority`` orders those that want the same axis (cuts of one name
    have the same): the lowest wins.
    """

    rank: int
    priority: int
    axes: tuple[str, ...]
    chain: tuple[str, ...]
    sizes: tuple[Size, ...]
    degree: int

    @cached_property
    def pieces(self) -> tuple[Pieces, ...]:
        """What every member of a group holds of the chain's dimensions."""
        return tuple(
            dict(zip(self.chain, _rectangle(self.sizes, self.degree, member), strict=True))
            for member in range(self.degree)
        )

    @cached_property
    def uneven(self) -> frozenset[str]:
        """The chain's dimensions of which members hold different parts."""
        return frozenset(
            dim for dim in self.chain if len({piece[dim] for piece in self.pieces}) > 1
        )


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
    for priority, entry in enumerate(placing.splits):
        for axis in entry.axes:
            served.setdefault(axis, []).append(entry.name)
        if entry.name == STAGES:
            continue
        degree = product(placing.mesh.degree(axis) for axis in entry.axes)
        if degree == 1:
            continue
        chains = dimensions.targets(entry.name)
        if entry.required and not chains:
            raise _nothing(",".join(entry.axes), [entry.name], dimensions)
        for chain in chains:
            if any(dim in cut.chain for cut in found for dim in chain):
                continue
            sizes = tuple(dimensions.dimensions[dim].size for dim in chain)
            found.append(Cut(len(found), priority, entry.axes, chain, sizes, int(degree)))
    for axis, names in served.items():
        if placing.mesh.degree(axis) == 1 or STAGES in names:
            continue
        if not any(axis in cut.axes for cut in found):
            raise _nothing(axis, names, dimensions)
    return tuple(found)


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


@attrs.frozen
class Shape:
    """What devices of one shape hold of every cut dimension; where it starts is a symbol."""

    pieces: tuple[Mapping[str, Range], ...]

    def of(self, cuts: frozenset[int]) -> dict[str, Range]:
        """The pieces of some cuts."""
        return {dim: piece for cut in cuts for dim, piece in self.pieces[cut].items()}


def shape_of(cuts: tuple[Cut, ...], mesh: Mesh, rank: int) -> Shape:
    """The shape of a rank's pieces, with symbols for what differs between equal shapes."""
    return Shape(
        tuple(
            {
                dim: _symbolic(cut, dim, piece)
                for dim, piece in cut.pieces[mesh.index(rank, cut.axes)].items()
                if not _whole(cut, dim, piece)
            }
            for cut in cuts
        )
    )


def bindings_of(cuts: tuple[Cut, ...], mesh: Mesh, rank: int) -> dict[str, Size]:
    """The values of a rank's symbols."""
    found: dict[str, Size] = {}
    for cut in cuts:
        for dim, piece in cut.pieces[mesh.index(rank, cut.axes)].items():
            shape = _symbolic(cut, dim, piece)
            if not isinstance(shape.start, int):
                found[start_symbol(dim).name] = piece.start
            if not isinstance(shape.length, int):
                found[here_symbol(dim).name] = piece.length
    return found


def _whole(cut: Cut, dim: str, piece: Range) -> bool:
    return piece.start == 0 and piece.stop == cut.sizes[cut.chain.index(dim)]


def _symbolic(cut: Cut, dim: str, piece: Range) -> Range:
    if _whole(cut, dim, piece) or piece.length == 0:
        return piece
    start = start_symbol(dim)
    length = piece.length if isinstance(piece.length, int) else here_symbol(dim)
    return Range(start, simplify(start + length))
