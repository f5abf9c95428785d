"""What tensors count for when two ways are compared, before any size is known."""

from __future__ import annotations

from parframe.graph import BYTES, Tensor
from parframe.sizes import evaluate, symbols_of

NOMINAL = 64
"""What a symbolic size counts for."""


def nominal_bytes(tensor: Tensor) -> float:
    """The bytes of a tensor with every symbol at its nominal size."""
    count = 1
    for size in tensor.shape:
        count *= evaluate(size, dict.fromkeys(symbols_of(size), NOMINAL))
    return count * BYTES[tensor.dtype]


def nominal_elements(tensor: Tensor) -> float:
    """The elements of a tensor with every symbol at its nominal size."""
    return nominal_bytes(tensor) / BYTES[tensor.dtype]
