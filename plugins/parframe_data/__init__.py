"""Data parallelism: the batch is split over replicas of the model."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class DataParallel(Strategy):
    """Split the batch; the model needs no communication for it."""

    code = "DP"
    axis = "dp"
    splits = ("batch",)


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of data parallelism."""
    return [DataParallel]
