"""Maximum and minimum over dims of which a device may have no elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def amax(self: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    """Return the greatest elements; the least value of the dtype where there are no elements."""
    return _extreme(torch.amax, -1, self, dim, keepdim)


def amin(self: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    """Return the least elements; the greatest value of the dtype where there are no elements."""
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
