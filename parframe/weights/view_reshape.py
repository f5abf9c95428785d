"""Reshape of tensors that are strided pieces of stored tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import attrs

from parframe.weights.strided_views import Piece, View


class UntraceableError(Exception):
    """Operator that does more than move elements."""


def reshape_view(view: View, shape: Sequence[int]) -> View:
    """Return a view with dims joined or divided; pieces that are partial along them raise.

    Raises
    ------
    UntraceableError
        If the reshaped pieces are no strided views of the stored tensors.
    """
    count = math.prod(view.shape)
    known = math.prod(size for size in shape if size >= 0)
    sizes = tuple(size if size >= 0 else count // known for size in shape)
    for old, new in _reshaped_dims(view.shape, sizes):
        view = _replace_dims(view, old, tuple(sizes[dim] for dim in new))
    return attrs.evolve(view, shape=sizes)


def _reshaped_dims(old: Sequence[int], new: Sequence[int]) -> Iterable[tuple[range, range]]:
    """Yield the smallest groups of dims with as many elements in both shapes, last first."""
    i, j = len(old), len(new)
    while i or j:
        low, high = i, j
        one = two = 1
        while low == i or high == j or one != two:
            if low and (one <= two or not high):
                low -= 1
                one *= old[low]
            elif high:
                high -= 1
                two *= new[high]
            else:
                break
        yield range(low, i), range(high, j)
        i, j = low, high


def _replace_dims(view: View, dims: range, sizes: tuple[int, ...]) -> View:
    """Return a view with adjacent dims replaced by others with as many elements."""
    low, high = dims.start, dims.stop
    if view.shape[low:high] == sizes:
        return view
    pieces = [
        part for piece in view.pieces for part in _replace_piece_dims(view, piece, dims, sizes)
    ]
    return View((*view.shape[:low], *sizes, *view.shape[high:]), view.dtype, tuple(pieces))


def _replace_piece_dims(
    view: View, piece: Piece, dims: range, sizes: tuple[int, ...]
) -> Iterable[Piece]:
    low, high = dims.start, dims.stop
    if piece.shape[low:high] != view.shape[low:high]:
        raise UntraceableError("a reshape of a tensor put together")
    outer = low  # the dims from here on are contiguous
    for dim in range(low, high - 1):
        if piece.strides[dim] != piece.strides[dim + 1] * piece.shape[dim + 1]:
            outer = dim + 1
    length = math.prod(piece.shape[outer:high])
    step = piece.strides[high - 1] if high > low else 1
    if outer > low and len(sizes) != 1:
        raise UntraceableError("a reshape of a transposed tensor")
    for number, place in enumerate(itertools.product(*map(range, piece.shape[low:outer]))):
        offset = sum(i * piece.strides[low + dim] for dim, i in enumerate(place))
        inner = sizes if outer == low else (length,)
        strides = tuple(step * math.prod(inner[dim + 1 :]) for dim in range(len(inner)))
        at = (0,) * len(inner) if outer == low else (number * length,)
        yield attrs.evolve(
            piece,
            offset=piece.offset + offset,
            strides=(*piece.strides[:low], *strides, *piece.strides[high:]),
            at=(*piece.at[:low], *at, *piece.at[high:]),
            shape=(*piece.shape[:low], *inner, *piece.shape[high:]),
        )
