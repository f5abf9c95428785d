"""Embedding lookup in a part of the table."""

from __future__ import annotations

import torch


def embedding(weight: torch.Tensor, indices: torch.Tensor, start: int) -> torch.Tensor:
    """Look up the rows of a device's part of a table; rows of other devices give zeros.

    The weight (``[rows, width]``) has the device's rows, from number ``start`` of the whole table
    on. The indices, of any shape, are numbers of rows in the whole table.
    """
    rows = weight.shape[0]
    if rows == 0:
        return weight.new_zeros((*indices.shape, weight.shape[1]))
    local = indices - start
    outside = (local < 0) | (local >= rows)
    result = torch.nn.functional.embedding(local.clamp(0, rows - 1), weight)
    return result.masked_fill(outside.unsqueeze(-1), 0)
