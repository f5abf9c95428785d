"""What the operators that exist only in device graphs compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parframe.loading.experts import Form, mixed
from parframe.loading.schema import default, overload


def embedding(weight: torch.Tensor, indices: torch.Tensor, start: int) -> torch.Tensor:
    """Look up the rows that ``weight`` has, the first of which is ``start``; others are zero."""
    rows = weight.shape[0]
    if rows == 0:
        return weight.new_zeros((*indices.shape, weight.shape[1]))
    own = indices - start
    outside = (own < 0) | (own >= rows)
    found = torch.nn.functional.embedding(own.clamp(0, rows - 1), weight)
    return found.masked_fill(outside.unsqueeze(-1), 0)


def amax(self: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    """The greatest elements; the least value of the dtype where there are none."""
    return _extreme(torch.amax, -1, self, dim, keepdim)


def amin(self: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    """The least elements; the greatest value of the dtype where there are none."""
    return _extreme(torch.amin, 1, self, dim, keepdim)


def _extreme(
    reduce: Callable[..., torch.Tensor],
    sign: int,
    values: torch.Tensor,
    dim: tuple[int, ...],
    keepdim: bool,
) -> torch.Tensor:
    if all(values.shape[i] for i in dim):
        return reduce(values, dim, keepdim=keepdim)
    shape = [1 if i in dim else n for i, n in enumerate(values.shape) if keepdim or i not in dim]
    return values.new_full(shape, _bound(values.dtype, sign))


def _bound(dtype: torch.dtype, sign: int) -> Any:
    if dtype is torch.bool:
        return sign > 0
    if dtype.is_floating_point:
        return sign * float("inf")
    info = torch.iinfo(dtype)
    return info.max if sign > 0 else info.min


def guarded(target: str, shape: tuple[int, ...], **args: Any) -> torch.Tensor:
    """Run an operator that PyTorch does not run on empty tensors; nothing contributes zeros."""
    tensors = [arg for arg in args.values() if isinstance(arg, torch.Tensor)]
    if all(tensor.numel() for tensor in tensors):
        operator = overload(target)
        absent = {argument.name: default(argument) for argument in operator._schema.arguments}
        result: torch.Tensor = operator(**{**absent, **args})
        return result
    empty = tensors[0].new_zeros(tuple(shape))
    if empty.numel() and "bias" in args:
        weight: torch.Tensor = args["weight"]
        empty += args["bias"].reshape(-1, *[1] * (weight.dim() - 2))
    return empty


def some_experts(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gates: int,
    interleaved: bool,
    transposed: bool,
    first: int,
    column: int,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The experts from number ``first`` on; the bias is added where their columns begin."""
    columns = down.shape[1 if transposed else 2]
    if column or not columns:
        down_bias = None
    form = Form(activation, gates, interleaved, transposed)
    return mixed(hidden, ids, weights, up, up_bias, down, down_bias, form, first)


LOCAL: Mapping[str, Callable[..., torch.Tensor]] = {
    "parframe.embedding": embedding,
    "parframe.amax": amax,
    "parframe.amin": amin,
    "parframe.guarded": guarded,
    "parframe.some_experts": some_experts,
}
"""The operators by target; each takes its arguments by name."""
