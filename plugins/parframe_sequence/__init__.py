"""Sequence parallelism: tensor ranks share the sequence wherever no width is split."""

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
    """Offer sequence parallelism."""
    return [SequenceParallel]
