"""Tensors without contents that trace the elements of stored tensors that they are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch

from parframe.weights.strided_views import Piece, View, whole_view


class UntraceableError(Exception):
    """Operator that does more than move elements."""


def reshape_view(view: View, shape: Sequence[int]) -> View:
    """Return a view with dims joined or divided; pieces that are partial along them raise.

    Raise ``UntraceableError`` if the reshaped pieces are no strided views of the stored tensors.
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


aten: Any = torch.ops.aten


class TracedTensor(torch.Tensor):
    """Tensor of known stored elements; only operators that move elements can be called on it."""

    view_of: View

    @staticmethod
    def __new__(cls, view: View) -> TracedTensor:
        """Return a tensor of the view's shape and dtype, without memory."""
        tensor: TracedTensor = torch.Tensor._make_wrapper_subclass(
            cls, view.shape, dtype=getattr(torch, view.dtype)
        )
        tensor.view_of = view
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return the traced outputs of an operator."""
        if func not in _TRACING_RULES:
            raise UntraceableError(str(func))
        views = _TRACING_RULES[func](*args, **(kwargs or {}))
        return (
            [TracedTensor(view) for view in views]
            if isinstance(views, list)
            else TracedTensor(views)
        )


def trace_tensor(name: str, shape: tuple[int, ...], dtype: str) -> TracedTensor:
    """Return a stored tensor to trace through operators."""
    return TracedTensor(whole_view(name, shape, dtype))


def _unchanged(source: TracedTensor, *_: Any, **options: Any) -> View:
    if options.get("dtype") not in (None, source.dtype):
        raise UntraceableError("a conversion of dtype")
    return source.view_of


def _dim_number(source: TracedTensor, dim: int, more: int = 0) -> int:
    return dim % (source.dim() + more)


def _transpose(source: TracedTensor, first: int, second: int) -> View:
    order = list(range(source.dim()))
    one, two = _dim_number(source, first), _dim_number(source, second)
    order[one], order[two] = order[two], order[one]
    return _permute(source, order)


def _transpose_2d(source: TracedTensor) -> View:
    return _permute(source, range(source.dim())[::-1])


def _permute(source: TracedTensor, order: Sequence[int]) -> View:
    return _move_dims(source.view_of, lambda values, _: tuple(values[dim] for dim in order))


def _move_dims(view: View, move: Callable[[tuple[int, ...], int], tuple[int, ...]]) -> View:
    """Return a view with its dims moved; ``move`` gets the values of all dims, and a new dim's."""
    pieces = tuple(
        attrs.evolve(p, strides=move(p.strides, 1), at=move(p.at, 0), shape=move(p.shape, 1))
        for p in view.pieces
    )
    return View(move(view.shape, 1), view.dtype, pieces)


def _slice(
    source: TracedTensor,
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> View:
    if step != 1:
        raise UntraceableError("a slice with steps")
    dim = _dim_number(source, dim)
    low, high, _ = slice(start, stop).indices(source.shape[dim])
    return _clip(source.view_of, dim, low, max(low, high))


def _clip(view: View, dim: int, low: int, high: int) -> View:
    pieces = []
    for piece in view.pieces:
        first = max(low, piece.at[dim])
        last = min(high, piece.at[dim] + piece.shape[dim])
        if first < last:
            pieces.append(
                attrs.evolve(
                    piece,
                    offset=piece.offset + (first - piece.at[dim]) * piece.strides[dim],
                    at=_replace_at(piece.at, dim, first - low),
                    shape=_replace_at(piece.shape, dim, last - first),
                )
            )
    return View(_replace_at(view.shape, dim, high - low), view.dtype, tuple(pieces))


def _split(source: TracedTensor, sizes: int | Sequence[int], dim: int = 0) -> list[View]:
    dim = _dim_number(source, dim)
    length = source.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - at) for at in range(0, length, sizes)]
    ends = [0, *itertools.accumulate(sizes)]
    return [_clip(source.view_of, dim, low, high) for low, high in itertools.pairwise(ends)]


def _select(source: TracedTensor, dim: int, index: int) -> View:
    dim = _dim_number(source, dim)
    at = index % source.shape[dim]
    return _remove_dim(_clip(source.view_of, dim, at, at + 1), dim)


def _unbind(source: TracedTensor, dim: int = 0) -> list[View]:
    return [_select(source, dim, number) for number in range(source.shape[dim])]


def _squeeze(source: TracedTensor, dim: int) -> View:
    dim = _dim_number(source, dim)
    return _remove_dim(source.view_of, dim) if source.shape[dim] == 1 else source.view_of


def _unsqueeze(source: TracedTensor, dim: int) -> View:
    return _add_dim(source.view_of, _dim_number(source, dim, 1))


def _cat(sources: Sequence[TracedTensor], dim: int = 0) -> View:
    return _join([source.view_of for source in sources], _dim_number(sources[0], dim))


def _stack(sources: Sequence[TracedTensor], dim: int = 0) -> View:
    dim = _dim_number(sources[0], dim, 1)
    return _join([_add_dim(source.view_of, dim) for source in sources], dim)


def _join(views: Sequence[View], dim: int) -> View:
    if len({view.dtype for view in views}) > 1:
        raise UntraceableError("tensors of several dtypes in one")
    pieces, at = [], 0
    for view in views:
        pieces += [attrs.evolve(p, at=_replace_at(p.at, dim, p.at[dim] + at)) for p in view.pieces]
        at += view.shape[dim]
    return View(_replace_at(views[0].shape, dim, at), views[0].dtype, tuple(pieces))


def _replace_at(values: tuple[int, ...], dim: int, value: int) -> tuple[int, ...]:
    return (*values[:dim], value, *values[dim + 1 :])


def _add_dim(view: View, dim: int) -> View:
    """Return a view with a new dim of one element."""
    return _move_dims(view, lambda values, new: (*values[:dim], new, *values[dim:]))


def _remove_dim(view: View, dim: int) -> View:
    """Return a view without a dim of one element."""
    return _move_dims(view, lambda values, _: (*values[:dim], *values[dim + 1 :]))


def _reshape(source: TracedTensor, shape: Sequence[int]) -> View:
    return reshape_view(source.view_of, shape)


_TRACING_RULES: dict[Any, Callable[..., View | list[View]]] = {
    aten.alias.default: _unchanged,
    aten.clone.default: _unchanged,
    aten.detach.default: _unchanged,
    aten._to_copy.default: _unchanged,
    aten.t.default: _transpose_2d,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.squeeze.dim: _squeeze,
    aten.unsqueeze.default: _unsqueeze,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.reshape.default: _reshape,
}
"""Functions that return the views that an operator makes of traced tensors."""
