"""Expert parallelism: every device takes its share of each layer's experts."""

from typing import Literal

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class ExpertParallel(Strategy):
    """Split the experts, and the batch outside them.

    Parameters
    ----------
    dispatch : "auto", "all_to_all" or "all_gather"
        How tokens meet their experts: each is sent to the devices that have its experts and its
        result comes back, or all are gathered and what the devices' experts gave is summed. By
        itself the first, where the model's experts are an operator that can do it.
    idle : bool
        Whether there may be more devices than experts; those without an expert are idle there.
    """

    code = "EP"
    axis = "ep"
    splits = ("experts", "batch")
    needs = ("experts",)

    dispatch: Literal["auto", "all_to_all", "all_gather"] = "auto"

    idle: bool = False

    def fills(self) -> tuple[str, ...]:
        """Give the experts, unless the user lets devices be idle."""
        return () if self.idle else ("experts",)

    def exchanges(self) -> tuple[str, ...]:
        """Give the exchange of tokens, unless the user set another dispatch."""
        wanted = {"auto": ("all_to_all?",), "all_to_all": ("all_to_all",)}
        return wanted.get(self.dispatch, ())


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer expert parallelism."""
    return [ExpertParallel]
