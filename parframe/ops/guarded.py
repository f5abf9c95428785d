"""Operators that PyTorch does not run on empty tensors, guarded for devices without elements."""

from __future__ import annotations

from typing import Any

import torch

from parframe.ops.schema import default_value, find_overload


def guarded(target: str, shape: tuple[int, ...], **args: Any) -> torch.Tensor:
    """Run an operator, or return zeros of a shape where one of its tensors is empty."""
    tensors = [arg for arg in args.values() if isinstance(arg, torch.Tensor)]
    if all(tensor.numel() for tensor in tensors):
        operator = find_overload(target)
        absent = {argument.name: default_value(argument) for argument in operator._schema.arguments}
        result: torch.Tensor = operator(**{**absent, **args})
        return result
    empty = tensors[0].new_zeros(tuple(shape))
    if empty.numel() and "bias" in args:
        weight: torch.Tensor = args["weight"]
        empty += args["bias"].reshape(-1, *[1] * (weight.dim() - 2))
    return empty
