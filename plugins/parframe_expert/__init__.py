"""Expert parallelism: every device takes its share of each layer's experts."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class ExpertParallel(Strategy):
    """Split the experts, and the batch outside them."""

    code = "EP"
    axis = "ep"
    splits = ("experts", "batch")
    needs = ("experts",)


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer expert parallelism."""
    return [ExpertParallel]
