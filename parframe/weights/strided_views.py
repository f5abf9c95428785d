"""Tensors as strided pieces of stored ones, and the elements that slices of them take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import attrs
import numpy
from numpy.typing import NDArray

Runs = tuple[tuple[int, int], ...]
"""Half-open ranges along an axis, in order."""

Extents = tuple[NDArray[numpy.int64], NDArray[numpy.int64]]
"""Where contiguous elements start in a stored tensor, and how many there are."""


@attrs.frozen
class Piece:
    """A box of a tensor: which element of a stored tensor each of its elements is.

    Parameters
    ----------
    tensor
        The stored tensor's name.
    offset
        The element of it, in row-major order, that is the box's first.
    strides
        How many elements further one step along each axis is.
    at
        Where in the tensor the box starts.
    shape
        The box's shape.
    """

    tensor: str
    offset: int
    strides: tuple[int, ...]
    at: tuple[int, ...]
    shape: tuple[int, ...]


@attrs.frozen
class View:
    """A tensor made of pieces that do not overlap and leave nothing out."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]


@attrs.frozen
class Cut:
    """What slices take of a piece.

    Parameters
    ----------
    piece
        The piece.
    runs
        What is taken along each of its axes, from where it starts.
    box
        Where that goes in the tensor of all that the slices take.
    """

    piece: Piece
    runs: tuple[Runs, ...]
    box: tuple[slice, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(part.stop - part.start for part in self.box)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor in row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def whole_view(name: str, shape: tuple[int, ...], dtype: str) -> View:
    """A stored tensor as it is."""
    piece = Piece(name, 0, contiguous(shape), (0,) * len(shape), shape)
    return View(shape, dtype, (piece,))


def slice_pieces(view: View, runs: Sequence[Runs]) -> list[Cut]:
    """What slices take of each piece of a tensor, nothing of some."""
    found = []
    for piece in view.pieces:
        axes = [
            _within(axis, at, at + size)
            for axis, at, size in zip(runs, piece.at, piece.shape, strict=True)
        ]
        if all(inner for inner, _ in axes):
            found.append(Cut(piece, tuple(r for r, _ in axes), tuple(box for _, box in axes)))
    return found


def _within(runs: Runs, start: int, stop: int) -> tuple[Runs, slice]:
    """The runs within a range, from its start; and their place among all that the runs take."""
    before = sum(max(0, min(high, start) - low) for low, high in runs)
    inner = tuple(
        (max(low, start) - start, min(high, stop) - start)
        for low, high in runs
        if max(low, start) < min(high, stop)
    )
    return inner, slice(before, before + sum(high - low for low, high in inner))


def split(cut: Cut, axis: int, parts: int) -> Iterable[Cut]:
    """The cut in as many parts along an axis, one after the other, as equal as can be."""
    length = cut.box[axis].stop - cut.box[axis].start
    ends = [length * number // parts for number in range(parts + 1)]
    for low, high in itertools.pairwise(ends):
        start = cut.box[axis].start
        box = (*cut.box[:axis], slice(start + low, start + high), *cut.box[axis + 1 :])
        taken = _taken(cut.runs[axis], low, high)
        yield Cut(cut.piece, (*cut.runs[:axis], taken, *cut.runs[axis + 1 :]), box)


def _taken(runs: Runs, low: int, high: int) -> Runs:
    """Of what runs take, that from number ``low`` to ``high``."""
    found, before = [], 0
    for start, stop in runs:
        first, last = max(low - before, 0), min(high - before, stop - start)
        if first < last:
            found.append((start + first, start + last))
        before += stop - start
    return tuple(found)


def stored_order(cut: Cut) -> tuple[int, ...]:
    """The axes of a cut from the slowest to the fastest in the stored tensor."""
    return tuple(sorted(range(len(cut.box)), key=lambda axis: -cut.piece.strides[axis]))


def extents(cut: Cut) -> Extents:
    """The elements that a cut takes of the stored tensor, in `stored_order`."""
    starts = numpy.zeros(1, numpy.int64)
    lengths = numpy.ones(1, numpy.int64)
    for axis in reversed(stored_order(cut)):
        stride = cut.piece.strides[axis]
        if starts.size == 1 and lengths[0] == stride:  # what is within is whole
            ends = numpy.asarray(cut.runs[axis], numpy.int64) * stride
            inner = starts[0]
            starts, lengths = _merged(inner + ends[:, 0], ends[:, 1] - ends[:, 0])
            continue
        steps = numpy.concatenate([numpy.arange(low, high) for low, high in cut.runs[axis]])
        starts, lengths = _merged(
            (steps[:, None] * stride + starts[None, :]).ravel(), numpy.tile(lengths, steps.size)
        )
    return starts + cut.piece.offset, lengths


def _merged(starts: NDArray[numpy.int64], lengths: NDArray[numpy.int64]) -> Extents:
    """The same elements, with what follows on each other joined."""
    first = numpy.ones(starts.size, bool)
    first[1:] = starts[1:] != starts[:-1] + lengths[:-1]
    where = numpy.flatnonzero(first)
    return starts[where], numpy.add.reduceat(lengths, where)
