"""Tensor parallelism: every device takes its share of each layer's width."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class TensorParallel(Strategy):
    """Split attention heads, feed-forward, that of experts too, and vocabulary."""

    code = "TP"
    axis = "tp"
    splits = ("heads", "ffn", "expert_ffn", "vocab")


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer tensor parallelism."""
    return [TensorParallel]
