"""Number of threads of a simulation: small operators are slower on many threads than on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

_SMALL_MODEL = 20_000_000
"""Largest number of weight elements of a model that runs on one thread."""


@contextmanager
def limit_threads(state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Limit PyTorch to one thread within the context, if the weights are small."""
    before = torch.get_num_threads()
    small = sum(tensor.numel() for tensor in state.values()) <= _SMALL_MODEL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)
