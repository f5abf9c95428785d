"""What a step of decoding reads from a device's memory: weights that are used, and the cache."""

from __future__ import annotations

from parframe.price.serving.steady_state import Deployment
from parframe.price.work.work import Attention, Experts, Product, Stage


def decode_bytes(
    deployment: Deployment, rows: float, context: float, prompts: float = 0.0
) -> float:
    """Return the bytes that a device of the busiest stage reads for a step of decoding.

    Tokens of ``prompts`` that are read in the same step choose experts as well.
    """
    stages = deployment.work.stages
    return max(_stage(stage, deployment, rows, context, prompts) for stage in stages)


def _stage(
    stage: Stage, deployment: Deployment, rows: float, context: float, prompts: float
) -> float:
    room = deployment.room
    read = 0.0
    for kernel in stage.kernels:
        if isinstance(kernel, Product):
            width = room.table if kernel.unquantized else room.weight
            read += kernel.count * kernel.inner * kernel.columns * width
        elif isinstance(kernel, Experts):
            missed = (1 - kernel.top_k / kernel.experts) ** ((rows + prompts) * kernel.share)
            touched = kernel.local_experts * (1 - missed)
            each = kernel.matrices * kernel.hidden * kernel.ffn * room.weight
            read += kernel.count * touched * each
        elif isinstance(kernel, Attention):
            seen = min(context, kernel.window) if kernel.window else context
            here = rows * kernel.share * seen * kernel.position_share
            read += kernel.count * here * kernel.cache_width * room.cache
    return read
