"""Tensors as strided pieces of stored tensors, and the stored elements of slices of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import attrs
import numpy
from numpy.typing import NDArray

Runs = tuple[tuple[int, int], ...]
"""Half-open ranges along a dim, in order."""

Extents = tuple[NDArray[numpy.int64], NDArray[numpy.int64]]
"""Starts and lengths of contiguous elements in a stored tensor."""


@attrs.frozen
class Piece:
    """Box of a tensor whose elements are a strided view of one stored tensor.

    - ``offset``: the element of the stored tensor, in row-major order, that is the first of the
      box.
    - ``strides``: the number of stored elements from one element to the next along each dim.
    - ``at``: the position of the box in the tensor.
    """

    tensor: str
    offset: int
    strides: tuple[int, ...]
    at: tuple[int, ...]
    shape: tuple[int, ...]


@attrs.frozen
class View:
    """Tensor made of pieces that cover it without gap or overlap."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]


@attrs.frozen
class PieceSlice:
    """Part of a piece that slices take.

    - ``runs``: the ranges that are taken along each dim, relative to the piece.
    - ``box``: the position of the taken elements in the tensor of all slices.
    """

    piece: Piece
    runs: tuple[Runs, ...]
    box: tuple[slice, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(part.stop - part.start for part in self.box)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor in row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def whole_view(name: str, shape: tuple[int, ...], dtype: str) -> View:
    """Return a view of all of a stored tensor."""
    piece = Piece(name, 0, contiguous(shape), (0,) * len(shape), shape)
    return View(shape, dtype, (piece,))


def slice_pieces(view: View, runs: Sequence[Runs]) -> list[PieceSlice]:
    """Return the parts of a tensor's pieces that slices take, without empty ones."""
    found = []
    for piece in view.pieces:
        axes = [
            _runs_within(axis, at, at + size)
            for axis, at, size in zip(runs, piece.at, piece.shape, strict=True)
        ]
        if all(inner for inner, _ in axes):
            found.append(
                PieceSlice(piece, tuple(r for r, _ in axes), tuple(box for _, box in axes))
            )
    return found


def _runs_within(runs: Runs, start: int, stop: int) -> tuple[Runs, slice]:
    """Return the runs within a range, relative to its start, and their position among all runs."""
    before = sum(max(0, min(high, start) - low) for low, high in runs)
    inner = tuple(
        (max(low, start) - start, min(high, stop) - start)
        for low, high in runs
        if max(low, start) < min(high, stop)
    )
    return inner, slice(before, before + sum(high - low for low, high in inner))


def split_slice(piece_slice: PieceSlice, axis: int, parts: int) -> Iterable[PieceSlice]:
    """Yield a slice in several parts along a dim, in order, as equal as possible."""
    length = piece_slice.box[axis].stop - piece_slice.box[axis].start
    ends = [length * number // parts for number in range(parts + 1)]
    for low, high in itertools.pairwise(ends):
        start = piece_slice.box[axis].start
        box = (
            *piece_slice.box[:axis],
            slice(start + low, start + high),
            *piece_slice.box[axis + 1 :],
        )
        taken = _runs_between(piece_slice.runs[axis], low, high)
        yield PieceSlice(
            piece_slice.piece, (*piece_slice.runs[:axis], taken, *piece_slice.runs[axis + 1 :]), box
        )


def _runs_between(runs: Runs, low: int, high: int) -> Runs:
    """Return the runs of the elements from number ``low`` to ``high`` that runs take."""
    found, before = [], 0
    for start, stop in runs:
        first, last = max(low - before, 0), min(high - before, stop - start)
        if first < last:
            found.append((start + first, start + last))
        before += stop - start
    return tuple(found)


def stored_order(piece_slice: PieceSlice) -> tuple[int, ...]:
    """Return the dims of a slice from the slowest to the fastest in the stored tensor."""
    return tuple(
        sorted(range(len(piece_slice.box)), key=lambda axis: -piece_slice.piece.strides[axis])
    )


def extents(piece_slice: PieceSlice) -> Extents:
    """Return the elements of the stored tensor that a slice takes, in `stored_order`."""
    starts = numpy.zeros(1, numpy.int64)
    lengths = numpy.ones(1, numpy.int64)
    for axis in reversed(stored_order(piece_slice)):
        stride = piece_slice.piece.strides[axis]
        if starts.size == 1 and lengths[0] == stride:  # what is within is whole
            ends = numpy.asarray(piece_slice.runs[axis], numpy.int64) * stride
            inner = starts[0]
            starts, lengths = _merge_adjacent(inner + ends[:, 0], ends[:, 1] - ends[:, 0])
            continue
        steps = numpy.concatenate([numpy.arange(low, high) for low, high in piece_slice.runs[axis]])
        starts, lengths = _merge_adjacent(
            (steps[:, None] * stride + starts[None, :]).ravel(), numpy.tile(lengths, steps.size)
        )
    return starts + piece_slice.piece.offset, lengths


def _merge_adjacent(starts: NDArray[numpy.int64], lengths: NDArray[numpy.int64]) -> Extents:
    """Return the same elements, with adjacent runs joined."""
    first = numpy.ones(starts.size, bool)
    first[1:] = starts[1:] != starts[:-1] + lengths[:-1]
    where = numpy.flatnonzero(first)
    return starts[where], numpy.add.reduceat(lengths, where)
