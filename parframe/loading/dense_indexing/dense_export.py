"""Export of a module whose code selects rows by a mask: all rows are computed, and masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import attrs
import torch

from parframe.graph import map_outputs, rename_arg
from parframe.loading.dense_indexing.dense_mode import DenseIndexingMode
from parframe.loading.dense_indexing.rowwise_functions import SelectionError
from parframe.loading.flat_graph import FlatGraph

REMARK = (
    "where the model's code selects rows by a mask, the graph computes all rows and masks those"
    " that are not selected"
)
"""Remark on the cost of a module that is exported in this way."""


def export_dense(module: torch.nn.Module, export: Callable[[], FlatGraph]) -> FlatGraph | None:
    """Export a module with all rows of every selection; None if it fails and selects no rows.

    Raises
    ------
    SelectionError
        If the module computes something else when no rows are selected.
    """
    with _indexing_mode(module, DenseIndexingMode()) as mode:
        try:
            graph = export()
        except Exception:
            if mode.used:
                raise
            return None
    if mode.queried:
        with _indexing_mode(module, DenseIndexingMode(dropped=True)):
            dropped = export()
        with _indexing_mode(module, DenseIndexingMode(dropped=True, empty=True)):
            empty = export()
        if _computation(dropped) != _computation(empty):
            raise SelectionError(
                "the model computes something else when no rows are selected, or counts them"
            )
    return attrs.evolve(graph, remarks=(*graph.remarks, REMARK))


def _computation(graph: FlatGraph) -> Any:
    """Return what a graph computes, with its values numbered in order, for comparison."""
    numbers: dict[str, str] = {name: name for name in (*graph.inputs, *graph.parameters)}
    lines = []
    for operator in graph.operators:
        args = {slot: rename_arg(arg, numbers) for slot, arg in operator.args.items()}
        numbers.update((name, f"%{len(numbers) + i}") for i, name in enumerate(operator.outputs))
        lines.append((operator.target, args, len(operator.outputs)))
    return lines, map_outputs(graph.outputs, numbers)


@contextmanager
def _indexing_mode(module: torch.nn.Module, mode: DenseIndexingMode) -> Iterator[DenseIndexingMode]:
    """Run a module's forward in a mode while the context lasts."""
    forward: Callable[..., Any] = module.forward

    @wraps(forward)
    def run(*args: Any, **kwargs: Mapping[str, Any]) -> Any:
        with mode:
            result = forward(*args, **kwargs)
            mode.check_result(result)
            return result

    overridden = vars(module).get("forward")
    module.forward = run
    try:
        yield mode
    finally:
        del module.forward
        if overridden is not None:
            module.forward = overridden
