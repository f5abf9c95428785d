"""The operator that writes a step's entries into a key-value cache."""

from __future__ import annotations

import torch


def write_cache(
    value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, position_dim: int
) -> torch.Tensor:
    """Write a step's entries into a cache in place, and return the cache itself.

    The value is ``[rows, ..., tokens, ...]`` with the tokens on ``position_dim``, where the cache
    has slots; ``slots`` (``[rows, tokens]``) has the slot of each token.
    """
    rows = torch.arange(value.shape[0], device=value.device).unsqueeze(-1)
    index: list[torch.Tensor | None] = [None] * (position_dim + 1)
    index[0], index[position_dim] = rows, slots
    entries = value if position_dim == 1 else value.movedim(position_dim, 1)
    result: torch.Tensor = torch.ops.aten.index_put_.default(cache, index, entries)
    return result
