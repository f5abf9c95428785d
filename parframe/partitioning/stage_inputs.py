"""Inputs of a pipeline stage from other stages: computed again, or received."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def find_stage_inputs(
    reads: Iterable[str],
    steps: Collection[int],
    model_inputs: Collection[str],
    producers: Mapping[str, int],
    recomputable: Mapping[int, frozenset[int]],
) -> tuple[frozenset[int], tuple[str, ...]]:
    """Return the steps that a stage computes again, and the values that it receives, by first use.

    ``steps`` are its own steps, ``model_inputs`` the values that every stage has, ``producers`` the
    steps that make values, ``recomputable`` cheap steps, each with all steps that it needs.
    """
    recomputed: set[int] = set()
    received: dict[str, None] = {}
    for value in reads:
        if value in model_inputs or producers[value] in steps:
            continue
        needed = recomputable.get(producers[value])
        if needed is not None:
            recomputed |= needed
        else:
            received[value] = None
    return frozenset(recomputed.difference(steps)), tuple(received)


def uses_broadcast(receivers: int, stages: int) -> bool:
    """Tell whether a value is broadcast: all other stages receive it, and they are several."""
    return stages > 2 and receivers == stages - 1
