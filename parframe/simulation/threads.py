"""How many threads a run takes: small operators are slower on many than on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

_SMALL = 20_000_000
"""Up to so many elements of weights a model counts as small."""


@contextmanager
def fitting_threads(state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within it, PyTorch computes on one thread if the weights are small."""
    before = torch.get_num_threads()
    small = sum(tensor.numel() for tensor in state.values()) <= _SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)
