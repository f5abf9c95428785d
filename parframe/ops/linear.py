"""The linear operator as rank modules compute it."""

from __future__ import annotations

import torch

_FEW = 4
"""Largest number of rows for which products and sums are faster than a matrix product."""


def linear(
    input: torch.Tensor,  # noqa: A002  the operator's own name
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute ``aten.linear``; few rows on a CPU in a compiled program as products and sums.

    The libraries' matrix product reads the weights of a single row at about half the speed of
    memory on many CPUs; the loop that a compiler generates reads them at nearly all of it.
    """
    few = input.device.type == "cpu" and input.numel() <= _FEW * input.shape[-1]
    if not few or not torch.compiler.is_compiling():
        result: torch.Tensor = torch.ops.aten.linear.default(input, weight, bias)
        return result
    product = (input.unsqueeze(-2) * weight).sum(-1)
    return product if bias is None else product + bias
