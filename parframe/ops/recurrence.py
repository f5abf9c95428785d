"""Linear recurrence: the operator of state-space and linear-attention layers."""

from __future__ import annotations

import torch


@torch.library.custom_op("parframe::recurrence", mutates_args=())
def recurrence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor | None,
) -> torch.Tensor:
    """Compute a linear recurrence: a state for every head, updated and read at each position.

    With the state ``S`` (``[size, width]``, zeros at first) and the query, key, value and decay of
    a position: ``S = exp(decay) S``, then ``S += key (x) value``, and the result is ``query S``.
    With ``beta`` it is what the state lacks that is added, ``key (x) beta (value - key S)``: the
    delta rule.

    Queries and keys are ``[batch, sequence, groups, size]``, values and the result ``[batch,
    sequence, heads, width]``; heads are a multiple of groups. ``decay``, the logarithm of what
    remains, is ``[batch, sequence, heads, size]``, or of size 1 where all of a state decays alike.
    ``beta`` is ``[batch, sequence, heads]``.
    """
    batch, length, heads, width = value.shape
    groups, size = key.shape[2:]
    group = heads // groups if groups else 0
    wide = torch.promote_types(torch.promote_types(key.dtype, value.dtype), decay.dtype)
    state = value.new_zeros(batch, heads, size, width, dtype=wide)
    result = value.new_empty(batch, length, heads, width)
    kept = decay.exp().unsqueeze(-1)
    for place in range(length):
        read, written = (
            part[:, place].to(wide).repeat_interleave(group, dim=1).unsqueeze(-1)
            for part in (query, key)
        )
        added = value[:, place].to(wide)
        state = state * kept[:, place]
        if beta is not None:
            added = (added - (state * written).sum(-2)) * beta[:, place].unsqueeze(-1)
        state = state + written * added.unsqueeze(-2)
        result[:, place] = (state * read).sum(-2)
    return result


@recurrence.register_fake
def _recurrence_shape(query, key, value, decay, beta):  # type: ignore[no-untyped-def]
    return torch.empty_like(value)
