"""Input tensors of a run, and the parts of inputs and weights that a device starts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.plan import Program
from parframe.simulation.graph_inputs import add_default_inputs
from parframe.simulation.regions import evaluate_regions, take


def convert_inputs(
    graph: OperatorGraph, inputs: Mapping[str, Any], dtype: torch.dtype | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Convert inputs to tensors of the model's dtypes, and add optional inputs left out.

    Floating-point inputs get ``dtype`` if it is given. An error of kind ``input`` reports a value
    that is not a tensor, or not of the kind (floating-point or integer) that the model takes.
    """
    tensors = {
        name: _convert(name, value, graph.inputs[name].dtype, dtype, device)
        if name in graph.inputs
        else value
        for name, value in inputs.items()
    }
    return add_default_inputs(graph, tensors)


def take_parts(
    program: Program,
    inputs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
) -> dict[str, torch.Tensor]:
    """Return a device's parts of whole inputs and weights, by the names of its program."""
    parts = [(part, inputs) for part in program.inputs]
    parts += [(part, state) for part in program.parameters]
    return {
        part.name: take(wholes[part.whole], evaluate_regions(part.region, sizes))
        for part, wholes in parts
    }


def _convert(
    name: str, value: Any, declared: str, dtype: torch.dtype | None, device: torch.device
) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParframeError("input", name, "is not a tensor", "give a torch.Tensor") from error
    expected: torch.dtype = getattr(torch, declared)
    floats = (tensor.is_floating_point(), expected.is_floating_point)
    if floats == (True, True):
        return tensor.to(dtype or expected)
    if floats == (False, False) and not tensor.is_complex():
        return tensor.to(expected)
    raise ParframeError(
        "input",
        name,
        f"has dtype {tensor.dtype}, but the model takes {declared}",
        "convert it first",
    )
