"""Starts of pipeline stages: those that the user sets, and the others by balance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parframe.errors import ParframeError
from parframe.partitioning.stage_balance import CumulativeCosts, balance_stages
from parframe.strategy import StageStart


def check_stage_count(stages: int, layers: int, axes: Sequence[str]) -> None:
    """Raise an error if a model with layers has fewer layers than stages."""
    if stages > 1 and 0 < layers < stages:
        raise ParframeError(
            "partition",
            "axis " + ",".join(axes),
            f"{stages} pipeline stages, but the model has {layers} layers",
            f"use at most {layers} stages",
        )


def find_stage_starts(
    costs: CumulativeCosts,
    shares: Sequence[int],
    given: Sequence[StageStart],
    layers: int,
    first_step: Callable[[StageStart], int | None],
) -> tuple[int, ...]:
    """Return the first step of every stage but the first, ascending.

    ``shares`` are the stages' shares of the whole cost, ``given`` the starts that the user sets.
    ``first_step`` returns the first step of a layer or module, or None if the model does not have
    it, which is an error, as is a lack of steps.
    """
    if len(shares) == 1:
        return ()
    fixed: set[int] = set()
    for start in given:
        legal = not isinstance(start, int) or 0 < start < layers
        step = first_step(start) if legal else None
        if step is None:
            raise _no_such_place(start, layers)
        fixed.add(step)
    return balance_stages(costs, shares, sorted(fixed))


def _no_such_place(start: StageStart, layers: int) -> ParframeError:
    if isinstance(start, int):
        hint = f"layers are numbered from 1 to {layers - 1}"
    else:
        hint = "give the path of a module as the model names it, or a layer's number"
    where = f"stage_starts, {start!r}"
    return ParframeError("partition", where, "no such place in the model", hint)
