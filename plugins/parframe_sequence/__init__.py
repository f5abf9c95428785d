"""Sequence parallelism: tensor ranks split the sequence where they split no weight."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class SequenceParallel(Strategy):
    """Split the sequence on the axis of tensor parallelism, as in `TP4SP`."""

    code = "SP"
    axis = "tp"
    splits = ("sequence",)


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of sequence parallelism."""
    return [SequenceParallel]
