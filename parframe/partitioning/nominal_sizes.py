"""Nominal sizes of tensors, to compare costs before symbolic sizes are known."""

from __future__ import annotations

import math
from functools import lru_cache

from parframe.graph import BYTES, Tensor
from parframe.sizes import Size, evaluate, symbols_of

NOMINAL = 64
"""Value of a symbolic size."""


@lru_cache(maxsize=4096)
def nominal(size: Size) -> int:
    """Return a size with every symbol at its nominal value."""
    return evaluate(size, dict.fromkeys(symbols_of(size), NOMINAL))


def nominal_elements(tensor: Tensor) -> int:
    """Return the number of elements of a tensor at nominal sizes."""
    return math.prod(nominal(size) for size in tensor.shape)


def nominal_bytes(tensor: Tensor) -> float:
    """Return the bytes of a tensor at nominal sizes."""
    return nominal_elements(tensor) * BYTES[tensor.dtype]
