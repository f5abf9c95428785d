"""Context parallelism: every device takes its share of the sequence, on an axis of its own."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class ContextParallel(Strategy):
    """Split the sequence; attention gathers the keys and values."""

    code = "CP"
    axis = "cp"
    splits = ("sequence",)


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer context parallelism."""
    return [ContextParallel]
