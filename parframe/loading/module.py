"""Loader of a torch.nn.Module with example inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.loading.export import export
from parframe.loading.flat_graph import to_operator_graph
from parframe.loading.input_dims import DynamicDims, name_input_dims


def load_module(
    module: torch.nn.Module, inputs: Mapping[str, Any] | None, dynamic: DynamicDims | None
) -> OperatorGraph:
    """Export a module; its weights are neither moved nor changed.

    Raises
    ------
    ParframeError
        If there are no inputs, or the module cannot be exported.
    """
    if not inputs:
        raise ParframeError(
            "input",
            type(module).__name__,
            "a module is exported with example inputs, and none are given",
            'give them by the names of the forward\'s arguments: inputs={"x": torch.zeros(2, 8)}',
        )
    dim_names = name_input_dims(module, inputs, dynamic)
    graph = export(module, inputs, dim_names, strict=dynamic is not None)
    return to_operator_graph(graph, type(module).__name__)
