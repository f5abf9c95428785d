"""What some operators of a program are on a device: functions of plain PyTorch operators."""

from __future__ import annotations

import torch

from parframe.loading.operators import attended, seen_of

_aten = torch.ops.aten


_FEW = 4
"""Up to so many rows, products and sums read weights faster than a matrix product does."""


def linear(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``aten.linear``; few rows on a CPU as products and sums, which a compiler makes one loop of.

    The libraries' matrix product reads the weights of a single row at about half the speed of
    memory on many CPUs; the generated loop reads them at nearly all of it.
    """
    few = rows.device.type == "cpu" and rows.numel() <= _FEW * rows.shape[-1]
    if not few or not torch.compiler.is_compiling():
        result: torch.Tensor = _aten.linear.default(rows, weight, bias)
        return result
    product = (rows.unsqueeze(-2) * weight).sum(-1)
    return product if bias is None else product + bias


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_positions: torch.Tensor | None = None,
    key_positions: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    scale: float = 1.0,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """``parframe.attention`` by PyTorch's own attention where that can do it, and is the fastest.

    Of a single query on a CPU, a compiler makes loops that read keys and values once, and a third
    faster than the library's blocks do.
    """
    single = query.device.type == "cpu" and query.shape[2] == 1 and torch.compiler.is_compiling()
    if single or sinks is not None or softcap is not None or mask is not None:
        return attended(
            query, key, value, query_positions, key_positions, sinks, mask, scale, causal, window,
            softcap,
        )  # fmt: skip
    seen = seen_of(query_positions, key_positions, causal, window)
    bias = None
    if seen is not None:
        seen = seen.squeeze(1) if seen.dim() == 5 else seen
        low = torch.finfo(query.dtype).min / 2  # a row that sees nothing must not become NaN
        bias = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, low)
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return found.transpose(1, 2)


def keep(value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, axis: int) -> torch.Tensor:
    """Write a step's entries into a cache; the cache itself.

    Parameters
    ----------
    value
        ``[rows, ..., tokens, ...]``, the tokens on ``axis``.
    cache
        The same with slots on ``axis``; written into.
    slots
        ``[rows, tokens]``.
    """
    rows = torch.arange(value.shape[0], device=value.device).unsqueeze(-1)
    index: list[torch.Tensor | None] = [None] * (axis + 1)
    index[0], index[axis] = rows, slots
    entries = value if axis == 1 else value.movedim(axis, 1)
    result: torch.Tensor = _aten.index_put_.default(cache, index, entries)
    return result
