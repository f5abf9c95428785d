"""Context parallelism: the sequence is split over a mesh axis of its own."""

from typing import Literal

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class ContextParallel(Strategy):
    """Split the sequence; attention gathers keys and values, or passes them around a ring.

    Parameters
    ----------
    attention : "all_gather" or "ring"
        How attention gets the keys and values of other devices: all at once, or part by part
        around a ring (ring attention).
    placement : "contiguous" or "zigzag"
        Whether a device has one part of the sequence, or one part of its first half and the
        opposite part of its second half, which balances causal attention.
    """

    code = "CP"
    axis = "cp"
    splits = ("sequence",)

    attention: Literal["all_gather", "ring"] = "all_gather"
    placement: Literal["contiguous", "zigzag"] = "contiguous"

    def distributed_forms(self) -> tuple[str, ...]:
        """Return ring attention, if the user set it."""
        return ("ring",) if self.attention == "ring" else ()

    def zigzag(self) -> tuple[str, ...]:
        """Return the sequence, if the user set zigzag."""
        return ("sequence",) if self.placement == "zigzag" else ()


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of context parallelism."""
    return [ContextParallel]
