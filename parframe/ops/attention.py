"""Attention of grouped heads, masked by positions: schema, reference form and fused form."""

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
    """Compute attention of grouped heads, masked by positions: ``[batch, sequence, heads, width]``.

    Queries are ``[batch, heads, sequence, size]``, keys ``[batch, kv_heads, keys, size]`` and
    values ``[batch, kv_heads, keys, width]``; heads are a multiple of kv_heads. Positions in the
    sequence are needed if ``causal`` (a query sees only keys at its own and earlier positions) or
    ``window`` (the number of positions that a query sees, counted back from its own, and ahead too
    if not causal). ``sinks`` are one more logit for every head, to which no value belongs. The mask
    is added to the logits (floating point), or true where a query sees a key (boolean). ``scale``
    is the factor of the logits, ``softcap`` their bound, by tanh.
    """
    return reference_attention(
        query, key, value, query_positions, key_positions, sinks, mask, scale, causal, window,
        softcap,
    )  # fmt: skip


@attention.register_fake
def _attention_shape(query, key, value, *rest):  # type: ignore[no-untyped-def]
    batch, heads, queries, _ = query.shape
    return value.new_empty(batch, queries, heads, value.shape[-1])


def reference_attention(
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
    """Compute `attention` with PyTorch's plain operators."""
    logits = attention_logits(
        query, key, query_positions, key_positions, mask, scale, causal, window, softcap
    )
    weights = _softmax(logits, sinks).to(value.dtype)
    return merge_heads(torch.matmul(weights, value.unsqueeze(2)), query.shape[1])


def fused_attention(
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
    """Compute `attention` with PyTorch's scaled dot product attention where that is faster.

    Sinks, a softcap and a mask need the plain operators. So does a single query on a CPU in a
    compiled program: the compiler makes loops that read keys and values once, and a third faster
    than the library's blocks do.
    """
    single = query.device.type == "cpu" and query.shape[2] == 1 and torch.compiler.is_compiling()
    if single or sinks is not None or softcap is not None or mask is not None:
        return reference_attention(
            query, key, value, query_positions, key_positions, sinks, mask, scale, causal, window,
            softcap,
        )  # fmt: skip
    visible = visible_keys(query_positions, key_positions, causal, window)
    bias = None
    if visible is not None:
        visible = visible.squeeze(1) if visible.dim() == 5 else visible
        low = torch.finfo(query.dtype).min / 2  # a row that sees nothing must not become NaN
        bias = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, low)
    result = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return result.transpose(1, 2)


def attention_logits(
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
    """Compute the logits that `attention` takes the softmax of.

    They are ``[batch, kv_heads, group, sequence, keys]``, where a group is the heads of one
    kv_head.
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
    visible = visible_keys(query_positions, key_positions, causal, window)
    if visible is not None:
        logits = logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
    return logits


def merge_heads(result: torch.Tensor, heads: int) -> torch.Tensor:
    """Reshape ``[batch, kv_heads, group, queries, size]`` to ``[batch, queries, heads, size]``."""
    batch, _, _, queries, size = result.shape
    return result.reshape(batch, heads, queries, size).transpose(1, 2).contiguous()


def sink_logits(sinks: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Expand the sinks to the logits of one more key."""
    return sinks.reshape(1, *logits.shape[1:3], 1, 1).expand(*logits.shape[:-1], 1)


def visible_keys(
    queries: torch.Tensor | None, keys: torch.Tensor | None, causal: bool, window: int | None
) -> torch.Tensor | None:
    """Return which keys each query sees as booleans, or None where it sees all of them."""
    if not causal and window is None:
        return None
    if queries is None or keys is None:
        raise ValueError("parframe::attention needs positions where it is causal or has a window")
    distance = queries.unsqueeze(-1) - keys.unsqueeze(-2)
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        visible = visible & (distance.abs() < window)
    return visible[:, None, None] if visible.dim() == 3 else visible


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
    extra = sink_logits(sinks, logits)
    return torch.softmax(torch.cat([logits, extra], dim=-1), dim=-1, dtype=wide)[..., :-1]
