"""Starts of pipeline stages: those that the user sets, and the others by balance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parframe.errors import ParframeError
from parframe.partitioning.stage_balance import CumulativeCosts, balance_stages
from parframe.strategy import StageStart


def check_stage_count(stages: int, layers: int, axes: Sequence[str]) -> None:
    """Check that a model has a layer for every stage.

    Parameters
    ----------
    stages
        Number of stages.
    layers
        Number of layers of the model; 0 if it has no repeated block.
    axes
        The mesh axes of the stages.

    Raises
    ------
    ParframeError
        Of kind ``partition``.
    """
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
    """Find the first step of every stage but the first.

    Parameters
    ----------
    costs
        Costs of all steps.
    shares
        For every stage, its share of the whole cost.
    given
        Starts that the user sets: numbers of layers, or module paths.
    layers
        Number of layers of the model.
    first_step
        Returns the first step of a layer or a module; None if the model does not have it.

    Returns
    -------
    tuple of int
        Steps, ascending.

    Raises
    ------
    ParframeError
        Of kind ``partition``, if the model does not have a layer or module of ``given``, or there
        are not enough steps.
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
