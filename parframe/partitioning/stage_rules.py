"""Rules of pipeline stages that apply to whole graphs and to shortened ones alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from parframe.errors import ParframeError


@attrs.frozen
class StageInputs:
    """Inputs of a stage that other stages compute.

    Parameters
    ----------
    recomputed
        Numbers of cheap steps that the stage computes again, with all that they need.
    received
        Values that the stage receives, in the order of their first use.
    """

    recomputed: frozenset[int]
    received: tuple[str, ...]


def find_stage_inputs(
    reads: Iterable[str],
    steps: Collection[int],
    model_inputs: Collection[str],
    producers: Mapping[str, int],
    closures: Mapping[int, frozenset[int]],
) -> StageInputs:
    """Divide the values that a stage reads from others into recomputed and received ones.

    Parameters
    ----------
    reads
        Values that the stage reads.
    steps
        Numbers of the stage's own steps.
    model_inputs
        Inputs and parameters of the model, which every stage has.
    producers
        Number of the step that makes a value.
    closures
        Cheap steps, each with all steps that it needs.
    """
    recomputed: set[int] = set()
    received: dict[str, None] = {}
    for value in reads:
        if value in model_inputs or producers[value] in steps:
            continue
        closure = closures.get(producers[value])
        if closure is not None:
            recomputed |= closure
        else:
            received[value] = None
    return StageInputs(frozenset(recomputed), tuple(received))


def uses_broadcast(receivers: int, stages: int) -> bool:
    """Return whether a value is broadcast: all other stages receive it, and they are several."""
    return stages > 2 and receivers == stages - 1


def check_stage_count(axis: Iterable[str], stages: int, layers: int) -> None:
    """Refuse more stages than a model has layers; a model without known layers passes.

    Raises
    ------
    ParframeError
        Of kind `partition`.
    """
    if stages > 1 and layers and stages > layers:
        raise ParframeError(
            "partition",
            "axis " + ",".join(axis),
            f"{stages} pipeline stages, but the model has {layers} layers",
            f"use at most {layers} stages",
        )


def unknown_stage_start(start: int | str, layers: int) -> ParframeError:
    """Return the error of a stage start that is not in the model."""
    if isinstance(start, int):
        hint = f"layers are numbered from 1 to {layers - 1}"
    else:
        hint = "give the path of a module as the model names it, or a layer's number"
    return ParframeError(
        "partition", f"stage_starts, {start!r}", "no such place in the model", hint
    )
