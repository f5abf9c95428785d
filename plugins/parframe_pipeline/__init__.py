"""Pipeline parallelism: consecutive layers are split into stages."""

import attrs

from parframe import Strategy, hookimpl

parframe_api = 1


@attrs.frozen
class PipelineParallel(Strategy):
    """Split the layers into stages that send activations to the next.

    Parameters
    ----------
    stage_starts : tuple of str or int
        Where stages after the first one start: numbers of layers, or module paths. Stages that
        are not given are balanced by compute and memory.
    """

    code = "PP"
    axis = "pp"
    splits = ("layers",)

    stage_starts: tuple[str | int, ...] = ()

    def fixed_stage_starts(self) -> tuple[str | int, ...]:
        """Return the stage starts that the user set."""
        return self.stage_starts


@hookimpl
def parframe_strategies() -> list[type[Strategy]]:
    """Return the strategy of pipeline parallelism."""
    return [PipelineParallel]
