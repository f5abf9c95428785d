"""Bytes that a decode step reads from the memory of a device: weights in use, and KV cache."""

from __future__ import annotations

from parframe.price.serving.deployment import Deployment
from parframe.price.work.work import Attention, Experts, Product, Stage


def decode_read_bytes(
    deployment: Deployment, sequences: float, context: float, prefill_tokens: float = 0.0
) -> float:
    """Return the bytes that a device of the busiest stage reads in a decode step.

    Prefill tokens of the same step select experts as well.
    """
    return max(
        _stage_read_bytes(stage, deployment, sequences, context, prefill_tokens)
        for stage in deployment.work.stages
    )


def _stage_read_bytes(
    stage: Stage, deployment: Deployment, sequences: float, context: float, prefill_tokens: float
) -> float:
    memory = deployment.memory
    total = 0.0
    for kernel in stage.kernels:
        if isinstance(kernel, Product):
            element = memory.unquantized if kernel.unquantized else memory.weight
            total += kernel.count * kernel.inner * kernel.columns * element
        elif isinstance(kernel, Experts):
            tokens = (sequences + prefill_tokens) * kernel.share
            idle = (1 - kernel.top_k / kernel.experts) ** tokens
            active = kernel.local_experts * (1 - idle)
            expert = kernel.matrices * kernel.hidden * kernel.ffn * memory.weight
            total += kernel.count * active * expert
        elif isinstance(kernel, Attention):
            positions = min(context, kernel.window) if kernel.window else context
            here = sequences * kernel.share * positions * kernel.position_share
            total += kernel.count * here * kernel.cache_width * memory.cache
    return total
