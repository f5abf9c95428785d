"""What tensors count for when two ways are compared, before any size is known."""

from __future__ import annotations

import math
from functools import lru_cache

from parframe.graph import BYTES, Tensor
from parframe.sizes import Size, evaluate, symbols_of

NOMINAL = 64
"""What a symbolic size counts for."""


def nominal(size: Size) -> int:
    """A size with every symbol at its nominal size."""
    return size if isinstance(size, int) else _evaluated(size)


@lru_cache(maxsize=4096)
def _evaluated(size: Size) -> int:
    return evaluate(size, dict.fromkeys(symbols_of(size), NOMINAL))


def nominal_elements(tensor: Tensor) -> int:
    """The elements of a tensor at nominal sizes."""
    return math.prod(nominal(size) for size in tensor.shape)


def nominal_bytes(tensor: Tensor) -> float:
    """The bytes of a tensor at nominal sizes."""
    return nominal_elements(tensor) * BYTES[tensor.dtype]
