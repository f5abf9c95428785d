"""Tensor parallelism: heads, feed-forward and vocabulary are split over devices."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class TensorParallel(Strategy):
    """Split attention heads, feed-forward (also inside experts) and vocabulary."""

    code = "TP"
    axis = "tp"
    splits = ("heads", "ffn", "expert_ffn", "vocab")


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of tensor parallelism."""
    return [TensorParallel]
