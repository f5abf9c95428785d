"""The unpartitioned model: a graph's operators in order, on whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parframe.graph import Operator, OperatorGraph
from parframe.simulation.device_coroutine import last_uses
from parframe.simulation.interpreter import execute, input_sizes, with_counted
from parframe.simulation.outputs import structured


def run_graph(
    graph: OperatorGraph,
    inputs: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
) -> Any:
    """What a graph's model returns, unpartitioned, in its own structure; see ``reference``."""
    return structured(graph.outputs, reference(graph, inputs, weights, dtype))


def reference(
    graph: OperatorGraph,
    inputs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    watch: Callable[[Operator, str, torch.Tensor], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Run a graph as one device would.

    Parameters
    ----------
    graph
        The model.
    inputs, state
        Tensors by the graph's names of its inputs and parameters.
    dtype, device
        As for ``execute``.
    watch
        Told of every operator's values: the operator, the name, the value.

    Returns
    -------
    dict of str to torch.Tensor
        The values that the model returns, by name.

    Raises
    ------
    ParframeError
        Of kind ``input``, if the inputs do not fit; of kind ``run``, if an operator fails.
    """
    inputs = with_counted(graph, inputs)
    sizes = input_sizes(graph, inputs)
    values: dict[str, torch.Tensor] = {**inputs, **state}
    operators = [operator for _, operator in graph.expanded()]
    with torch.no_grad():
        for operator, last in zip(
            operators, last_uses(operators, set(graph.output_names)), strict=True
        ):
            results = execute(operator, values, sizes, dtype, device)
            for name, value in zip(operator.outputs, results, strict=True):
                values[name] = value
                if watch is not None:
                    watch(operator, name, value)
            for name in last:
                del values[name]
    return {name: values[name] for name in graph.output_names}
