"""Tensors without contents that remember which elements of stored tensors they are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch

from parframe.weights.strided_views import Piece, View, whole_view

aten: Any = torch.ops.aten


class UntraceableError(Exception):
    """An operator that does more than move elements."""


class Traced(torch.Tensor):
    """A tensor of known origin: operators that only rearrange can be called on it."""

    view_of: View

    @staticmethod
    def __new__(cls, view: View) -> Traced:
        """A tensor of the view's shape and dtype, which holds no memory."""
        made: Traced = torch.Tensor._make_wrapper_subclass(
            cls, view.shape, dtype=getattr(torch, view.dtype)
        )
        made.view_of = view
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Follow an operator."""
        if func not in _RULES:
            raise UntraceableError(str(func))
        found = _RULES[func](*args, **(kwargs or {}))
        return [Traced(view) for view in found] if isinstance(found, list) else Traced(found)


def trace_tensor(name: str, shape: tuple[int, ...], dtype: str) -> Traced:
    """A stored tensor, to be followed through operators."""
    return Traced(whole_view(name, shape, dtype))


def _same(source: Traced, *_: Any, **options: Any) -> View:
    if options.get("dtype") not in (None, source.dtype):
        raise UntraceableError("a conversion of dtype")
    return source.view_of


def _axis(source: Traced, dim: int, more: int = 0) -> int:
    return dim % (source.dim() + more)


def _transpose(source: Traced, first: int, second: int) -> View:
    order = list(range(source.dim()))
    one, two = _axis(source, first), _axis(source, second)
    order[one], order[two] = order[two], order[one]
    return _permute(source, order)


def _turned(source: Traced) -> View:
    return _permute(source, range(source.dim())[::-1])


def _permute(source: Traced, order: Sequence[int]) -> View:
    def turned(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in order)

    view = source.view_of
    pieces = tuple(
        attrs.evolve(p, strides=turned(p.strides), at=turned(p.at), shape=turned(p.shape))
        for p in view.pieces
    )
    return View(turned(view.shape), view.dtype, pieces)


def _slice(
    source: Traced, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> View:
    if step != 1:
        raise UntraceableError("a slice with steps")
    axis = _axis(source, dim)
    low, high, _ = slice(start, stop).indices(source.shape[axis])
    return _clipped(source.view_of, axis, low, max(low, high))


def _clipped(view: View, axis: int, low: int, high: int) -> View:
    pieces = []
    for piece in view.pieces:
        first = max(low, piece.at[axis])
        last = min(high, piece.at[axis] + piece.shape[axis])
        if first < last:
            pieces.append(
                attrs.evolve(
                    piece,
                    offset=piece.offset + (first - piece.at[axis]) * piece.strides[axis],
                    at=_put(piece.at, axis, first - low),
                    shape=_put(piece.shape, axis, last - first),
                )
            )
    return View(_put(view.shape, axis, high - low), view.dtype, tuple(pieces))


def _split(source: Traced, sizes: int | Sequence[int], dim: int = 0) -> list[View]:
    axis = _axis(source, dim)
    length = source.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - at) for at in range(0, length, sizes)]
    ends = [0, *itertools.accumulate(sizes)]
    return [_clipped(source.view_of, axis, low, high) for low, high in itertools.pairwise(ends)]


def _select(source: Traced, dim: int, index: int) -> View:
    axis = _axis(source, dim)
    at = index % source.shape[axis]
    return _without(_clipped(source.view_of, axis, at, at + 1), axis)


def _unbind(source: Traced, dim: int = 0) -> list[View]:
    return [_select(source, dim, number) for number in range(source.shape[dim])]


def _squeeze(source: Traced, dim: int) -> View:
    axis = _axis(source, dim)
    return _without(source.view_of, axis) if source.shape[axis] == 1 else source.view_of


def _unsqueeze(source: Traced, dim: int) -> View:
    return _with(source.view_of, _axis(source, dim, 1))


def _cat(sources: Sequence[Traced], dim: int = 0) -> View:
    return _joined([source.view_of for source in sources], _axis(sources[0], dim))


def _stack(sources: Sequence[Traced], dim: int = 0) -> View:
    axis = _axis(sources[0], dim, 1)
    return _joined([_with(source.view_of, axis) for source in sources], axis)


def _joined(views: Sequence[View], axis: int) -> View:
    if len({view.dtype for view in views}) > 1:
        raise UntraceableError("tensors of several dtypes in one")
    pieces, at = [], 0
    for view in views:
        pieces += [attrs.evolve(p, at=_put(p.at, axis, p.at[axis] + at)) for p in view.pieces]
        at += view.shape[axis]
    return View(_put(views[0].shape, axis, at), views[0].dtype, tuple(pieces))


def _reshape(source: Traced, shape: Sequence[int]) -> View:
    """Join or divide axes; pieces that are cut along these cannot be followed."""
    view, count = source.view_of, source.numel()
    known = math.prod(size for size in shape if size >= 0)
    whole = tuple(size if size >= 0 else count // known for size in shape)
    for olds, news in _groups(view.shape, whole):
        view = _regrouped(view, olds, tuple(whole[axis] for axis in news))
    return attrs.evolve(view, shape=whole)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterable[tuple[range, range]]:
    """The least groups of axes with as many elements in both shapes, from the last to the first."""
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


def _regrouped(view: View, axes: range, sizes: tuple[int, ...]) -> View:
    """The view with adjacent axes replaced by others of as many elements."""
    low, high = axes.start, axes.stop
    if view.shape[low:high] == sizes:
        return view
    pieces = [part for piece in view.pieces for part in _pieces_regrouped(view, piece, axes, sizes)]
    return View((*view.shape[:low], *sizes, *view.shape[high:]), view.dtype, tuple(pieces))


def _pieces_regrouped(
    view: View, piece: Piece, axes: range, sizes: tuple[int, ...]
) -> Iterable[Piece]:
    low, high = axes.start, axes.stop
    if piece.shape[low:high] != view.shape[low:high]:
        raise UntraceableError("a reshape of a tensor put together")
    outer = low  # the axes from here on are one, seen as several
    for axis in range(low, high - 1):
        if piece.strides[axis] != piece.strides[axis + 1] * piece.shape[axis + 1]:
            outer = axis + 1
    length = math.prod(piece.shape[outer:high])
    step = piece.strides[high - 1] if high > low else 1
    if outer > low and len(sizes) != 1:
        raise UntraceableError("a reshape of a transposed tensor")
    for number, place in enumerate(itertools.product(*map(range, piece.shape[low:outer]))):
        offset = sum(i * piece.strides[low + axis] for axis, i in enumerate(place))
        inner = sizes if outer == low else (length,)
        strides = tuple(step * math.prod(inner[axis + 1 :]) for axis in range(len(inner)))
        at = (0,) * len(inner) if outer == low else (number * length,)
        yield attrs.evolve(
            piece,
            offset=piece.offset + offset,
            strides=(*piece.strides[:low], *strides, *piece.strides[high:]),
            at=(*piece.at[:low], *at, *piece.at[high:]),
            shape=(*piece.shape[:low], *inner, *piece.shape[high:]),
        )


def _put(values: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return (*values[:axis], value, *values[axis + 1 :])


def _with(view: View, axis: int) -> View:
    """The view with a new axis of one element."""

    def wider(values: tuple[int, ...], value: int) -> tuple[int, ...]:
        return (*values[:axis], value, *values[axis:])

    pieces = tuple(
        attrs.evolve(p, strides=wider(p.strides, 1), at=wider(p.at, 0), shape=wider(p.shape, 1))
        for p in view.pieces
    )
    return View(wider(view.shape, 1), view.dtype, pieces)


def _without(view: View, axis: int) -> View:
    """The view without an axis of one element."""

    def narrower(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[:axis], *values[axis + 1 :])

    pieces = tuple(
        attrs.evolve(p, strides=narrower(p.strides), at=narrower(p.at), shape=narrower(p.shape))
        for p in view.pieces
    )
    return View(narrower(view.shape), view.dtype, pieces)


_RULES: dict[Any, Callable[..., View | list[View]]] = {
    aten.alias.default: _same,
    aten.clone.default: _same,
    aten.detach.default: _same,
    aten._to_copy.default: _same,
    aten.t.default: _turned,
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
"""What each operator that can be followed makes of its tensors."""
