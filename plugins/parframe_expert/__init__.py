"""Expert parallelism: the experts of each layer are split over devices."""

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
        How tokens get to their experts. With all_to_all each token is sent to the devices of its
        experts, and the results are sent back (dispatch and combine). With all_gather every
        device gathers all tokens, and the results of its experts are summed over devices. With
        auto it is all_to_all where the model's experts are an operator that supports it.
    idle : bool
        Whether there may be more devices than experts; devices without an expert are idle.
    """

    code = "EP"
    axis = "ep"
    splits = ("experts", "batch")
    needs = ("experts",)

    dispatch: Literal["auto", "all_to_all", "all_gather"] = "auto"

    idle: bool = False

    def no_idle(self) -> tuple[str, ...]:
        """Return the experts, unless the user lets devices be idle."""
        return () if self.idle else ("experts",)

    def distributed_forms(self) -> tuple[str, ...]:
        """Return dispatch and combine of tokens, unless the user set another dispatch."""
        wanted = {"auto": ("all_to_all?",), "all_to_all": ("all_to_all",)}
        return wanted.get(self.dispatch, ())


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of expert parallelism."""
    return [ExpertParallel]
