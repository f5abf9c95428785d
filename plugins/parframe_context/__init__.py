"""Context parallelism: every device takes its share of the sequence, on an axis of its own."""

from typing import Literal

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class ContextParallel(Strategy):
    """Split the sequence; attention gathers keys and values, or passes them round a ring.

    Parameters
    ----------
    attention : "all_gather" or "ring"
        How queries meet the keys and values of other devices.
    placement : "contiguous" or "zigzag"
        Whether a device has one part of the sequence, or one of its first half and the opposite
        one of its second, so that all have as much to do where attention is causal.
    """

    code = "CP"
    axis = "cp"
    splits = ("sequence",)

    attention: Literal["all_gather", "ring"] = "all_gather"
    placement: Literal["contiguous", "zigzag"] = "contiguous"

    def exchanges(self) -> tuple[str, ...]:
        """Give the ring, if the user set it."""
        return ("ring",) if self.attention == "ring" else ()

    def mirrored(self) -> tuple[str, ...]:
        """Give the sequence, if the user set zigzag."""
        return ("sequence",) if self.placement == "zigzag" else ()


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer context parallelism."""
    return [ContextParallel]
