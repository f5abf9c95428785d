"""A module exported with all rows of every selection, where its selections cannot be exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import attrs
import torch

from parframe.graph import map_leaves, rename
from parframe.loading.dense_indexing.rowwise_functions import SelectionError
from parframe.loading.dense_indexing.selection_mode import Selections
from parframe.loading.flat_graph import Program

REMARK = (
    "where the model's code computes the rows that it selects, all rows are computed, and those "
    "that are not selected are masked"
)
"""What is slow about a module that is exported so."""


def with_all_rows(module: torch.nn.Module, load: Callable[[], Program]) -> Program | None:
    """What ``load`` makes of a module with all rows of every selection; None if there is none.

    Raises
    ------
    SelectionError
        If the module's code tells apart whether there are rows.
    """
    with _dense(module, Selections()) as selections:
        try:
            program = load()
        except Exception:
            if selections.used:
                raise
            return None
    if selections.asked:
        with _dense(module, Selections(dropped=True)):
            dropped = load()
        with _dense(module, Selections(dropped=True, empty=True)):
            empty = load()
        if _unnamed(dropped) != _unnamed(empty):
            raise SelectionError("the model goes another way where there are no rows, or counts")
    return attrs.evolve(program, remarks=(*program.remarks, REMARK))


def _unnamed(program: Program) -> Any:
    """What a program computes, its values numbered in order."""
    numbers: dict[str, str] = {name: name for name in (*program.inputs, *program.parameters)}
    lines = []
    for operator in program.operators:
        args = {slot: rename(arg, numbers) for slot, arg in operator.args.items()}
        numbers.update((name, f"%{len(numbers) + i}") for i, name in enumerate(operator.outputs))
        lines.append((operator.target, args, len(operator.outputs)))
    return lines, map_leaves(program.outputs, numbers)


@contextmanager
def _dense(module: torch.nn.Module, selections: Selections) -> Iterator[Selections]:
    """Run a module with its selections treated so, for a while."""
    forward: Callable[..., Any] = module.forward

    @wraps(forward)
    def run(*args: Any, **kwargs: Mapping[str, Any]) -> Any:
        with selections:
            result = forward(*args, **kwargs)
            selections.check_result(result)
            return result

    own = vars(module).get("forward")
    module.forward = run
    try:
        yield selections
    finally:
        del module.forward
        if own is not None:
            module.forward = own
