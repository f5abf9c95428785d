"""parframe's own PyTorch operators: attention by positions."""

from __future__ import annotations

import torch


@torch.library.custom_op("parframe::attention", mutates_args=())
def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    sinks: torch.Tensor | None,
    mask: torch.Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention of grouped heads, masked by positions.

    Parameters
    ----------
    query
        ``[batch, heads, sequence, size]``.
    key, value
        ``[batch, kv_heads, keys, size]``; heads are a multiple of kv_heads.
    query_positions, key_positions
        The position of each query and of each key in the sequence; needed if ``causal`` or
        ``window``.
    sinks
        One more logit for every head, to which no value belongs.
    mask
        Added to the logits (floating point), or true where a query sees a key (boolean).
    scale
        Factor of the logits.
    causal
        Whether a query sees only keys at its own and earlier positions.
    window
        How many positions back a query sees, its own counted (and ahead too, if not causal).
    softcap
        Bound of the logits, by tanh.

    Returns
    -------
    torch.Tensor
        ``[batch, sequence, heads, size of a value]``.
    """
    return attended(
        query, key, value, query_positions, key_positions, sinks, mask, scale, causal, window,
        softcap,
    )  # fmt: skip


@attention.register_fake
def _attention_shape(query, key, value, *rest):  # type: ignore[no-untyped-def]
    batch, heads, queries, _ = query.shape
    return value.new_empty(batch, queries, heads, value.shape[-1])


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    sinks: torch.Tensor | None,
    mask: torch.Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Compute `attention`, with PyTorch's plain operators."""
    logits = logits_of(
        query, key, query_positions, key_positions, mask, scale, causal, window, softcap
    )
    weights = _softmax(logits, sinks).to(value.dtype)
    return ungrouped(torch.matmul(weights, value.unsqueeze(2)), query.shape[1])


def logits_of(
    query: torch.Tensor,
    key: torch.Tensor,
    query_positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    mask: torch.Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Give the logits that `attention` takes the softmax of.

    Returns
    -------
    torch.Tensor
        ``[batch, kv_heads, heads of each, sequence, keys]``.
    """
    batch, heads, queries, size = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads if kv_heads else 0
    grouped = query.reshape(batch, kv_heads, group, queries, size)
    logits = torch.matmul(grouped, key.unsqueeze(2).transpose(-1, -2)) * scale
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = _masked(logits, mask, kv_heads, group)
    seen = seen_of(query_positions, key_positions, causal, window)
    if seen is not None:
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    return logits


def ungrouped(result: torch.Tensor, heads: int) -> torch.Tensor:
    """Give ``[batch, kv_heads, heads of each, sequence, size]`` as what `attention` returns."""
    batch, _, _, queries, size = result.shape
    return result.reshape(batch, heads, queries, size).transpose(1, 2).contiguous()


def sinks_of(sinks: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Give the sinks as one more key's logits."""
    return sinks.reshape(1, *logits.shape[1:3], 1, 1).expand(*logits.shape[:-1], 1)


def seen_of(
    queries: torch.Tensor | None, keys: torch.Tensor | None, causal: bool, window: int | None
) -> torch.Tensor | None:
    """Which keys each query sees, or None for all of them."""
    if not causal and window is None:
        return None
    if queries is None or keys is None:
        raise ValueError("parframe::attention needs positions where it is causal or has a window")
    distance = queries.unsqueeze(-1) - keys.unsqueeze(-2)
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        seen = seen & (distance.abs() < window)
    return seen[:, None, None] if seen.dim() == 3 else seen


def _masked(logits: torch.Tensor, mask: torch.Tensor, kv_heads: int, group: int) -> torch.Tensor:
    if mask.dim() == 4:
        heads = (kv_heads, group) if mask.shape[1] != 1 else (1, 1)
        mask = mask.reshape(mask.shape[0], *heads, *mask.shape[2:])
    if mask.dtype is torch.bool:
        return logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return logits + mask


def _softmax(logits: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    if sinks is None:
        return torch.softmax(logits, dim=-1, dtype=wide)
    extra = sinks_of(sinks, logits)
    return torch.softmax(torch.cat([logits, extra], dim=-1), dim=-1, dtype=wide)[..., :-1]
