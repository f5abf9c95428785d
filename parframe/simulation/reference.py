"""Reference execution: the operators of an unpartitioned graph in order, on whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parframe.graph import Operator, OperatorGraph
from parframe.simulation.device_coroutine import find_last_uses
from parframe.simulation.graph_inputs import add_default_inputs, find_sizes
from parframe.simulation.interpreter import execute
from parframe.simulation.outputs import restore_structure


def run_graph(
    graph: OperatorGraph,
    inputs: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
) -> Any:
    """Return `run_reference`'s outputs in the model's own structure."""
    return restore_structure(graph.outputs, run_reference(graph, inputs, weights, dtype))


def run_reference(
    graph: OperatorGraph,
    inputs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    observe: Callable[[Operator, str, torch.Tensor], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Run a graph as one device would, and return its outputs by name.

    ``dtype`` and ``device`` are as for `execute`; ``observe`` is called with every result.

    Raises
    ------
    ParframeError
        Of kind ``input``, if the inputs do not fit; of kind ``run``, if an operator fails.
    """
    inputs = add_default_inputs(graph, inputs)
    sizes = find_sizes(graph, inputs)
    values: dict[str, torch.Tensor] = {**inputs, **state}
    operators = [operator for _, operator in graph.expand()]
    last_uses = find_last_uses(operators, set(graph.output_names))
    with torch.no_grad():
        for operator, unused in zip(operators, last_uses, strict=True):
            results = execute(operator, values, sizes, dtype, device)
            for name, value in zip(operator.outputs, results, strict=True):
                values[name] = value
                if observe is not None:
                    observe(operator, name, value)
            for name in unused:
                del values[name]
    return {name: values[name] for name in graph.output_names}
