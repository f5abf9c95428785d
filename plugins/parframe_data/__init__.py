"""Data parallelism: every replica of the model takes its share of the batch."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class DataParallel(Strategy):
    """Split the batch; no communication follows inside the model."""

    code = "DP"
    axis = "dp"
    splits = ("batch",)


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer data parallelism."""
    return [DataParallel]
