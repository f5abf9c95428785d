"""The operators that exist only in device programs, by target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from parframe.ops.embedding import embedding
from parframe.ops.experts import compute_local_experts
from parframe.ops.extremes import amax, amin
from parframe.ops.guarded import guarded

LOCAL: Mapping[str, Callable[..., torch.Tensor]] = {
    "parframe.embedding": embedding,
    "parframe.amax": amax,
    "parframe.amin": amin,
    "parframe.guarded": guarded,
    "parframe.local_experts": compute_local_experts,
}
"""The functions of these operators; each takes its arguments by name."""
