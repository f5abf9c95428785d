"""Load a torch.nn.Module with example inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.fold import fold
from parframe.graph import OperatorGraph
from parframe.loading.export import Dynamic, example_axes, export
from parframe.loading.flat_graph import Program
from parframe.loading.latent_cache import narrowed


def load_module(
    module: torch.nn.Module, inputs: Mapping[str, Any] | None, dynamic: Dynamic | None
) -> OperatorGraph:
    """Export a module; its weights are neither moved nor changed.

    Parameters
    ----------
    module
        The module.
    inputs
        Example tensors by the names of its forward's arguments.
    dynamic
        The axes that may vary; without it, the first axis of all inputs is tried.

    Raises
    ------
    ParframeError
        If there are no inputs, or the module cannot be exported.
    """
    if not inputs:
        raise ParframeError(
            "input",
            type(module).__name__,
            "a module is exported with example inputs",
            'give them by the forward\'s names: inputs={"x": torch.zeros(2, 8)}',
        )
    axes = example_axes(module, inputs, dynamic)
    program = export(module, inputs, axes, strict_axes=dynamic is not None)
    return folded(program, type(module).__name__)


def folded(program: Program, source: str = "") -> OperatorGraph:
    """The program as a graph, equal layers once."""
    fields = {field.name: getattr(program, field.name) for field in attrs.fields(Program)}
    return narrowed(fold(**fields, source=source))
