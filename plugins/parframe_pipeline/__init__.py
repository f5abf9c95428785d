"""Pipeline parallelism: every stage takes some consecutive layers."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class PipelineParallel(Strategy):
    """Split the layers into stages that send activations to the next.

    Parameters
    ----------
    cuts : tuple of str or int
        Where stages begin: before the layer of a number, or before a module path. Stages are
        balanced by compute and memory where none is given.
    """

    code = "PP"
    axis = "pp"
    splits = ("layers",)

    cuts: tuple[str | int, ...] = ()

    def stage_cuts(self) -> tuple[str | int, ...]:
        """Give the cuts that the user set."""
        return self.cuts


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Offer pipeline parallelism."""
    return [PipelineParallel]
