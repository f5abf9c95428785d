"""What is given to a run: the inputs as tensors, the dtype, and the parts a device gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError, did_you_mean
from parframe.graph import OperatorGraph
from parframe.plan import Program
from parframe.simulation.interpreter import with_counted
from parframe.simulation.regions import numbers, take

FLOATS = ("float64", "float32", "bfloat16", "float16")
"""The dtypes in which a model may be run."""


def dtype_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype of a name.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it is not a floating-point dtype to compute in.
    """
    if name is None:
        return None
    text = str(name).removeprefix("torch.")
    if text not in FLOATS:
        raise ParframeError(
            "input",
            "dtype",
            f"{text!r} is not a dtype to run in{did_you_mean(text, FLOATS)}",
            f"use one of {', '.join(FLOATS)}",
        )
    found: torch.dtype = getattr(torch, text)
    return found


def float_dtype(graph: OperatorGraph) -> str | None:
    """The dtype to compute in of most elements of a graph's parameters; None if there are none."""
    found: Counter[str] = Counter()
    for parameter in graph.parameters.values():
        if parameter.kind == "parameter" and parameter.dtype in FLOATS:
            found[parameter.dtype] += int(parameter.elements)
    return max(found, key=lambda name: found[name], default=None)


def input_tensors(
    graph: OperatorGraph,
    inputs: Mapping[str, Any],
    dtype: torch.dtype | None,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """The inputs as tensors of the model's dtypes, or of ``dtype`` where they are floats.

    Those that need not be given are added.

    Raises
    ------
    ParframeError
        Of kind ``input``, if one is no tensor or holds numbers of another sort.
    """
    given = {
        name: _tensor(name, value, graph.inputs[name].dtype, dtype, device)
        if name in graph.inputs
        else value
        for name, value in inputs.items()
    }
    return with_counted(graph, given)


def own_dtype(graph: OperatorGraph, state: Mapping[str, torch.Tensor]) -> torch.dtype | None:
    """The floating-point dtype of the weights that were given, if they have one."""
    kinds = {
        state[name].dtype
        for name, parameter in graph.parameters.items()
        if parameter.kind == "parameter" and state[name].is_floating_point()
    }
    return kinds.pop() if len(kinds) == 1 else None


def held(
    program: Program,
    inputs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
) -> dict[str, torch.Tensor]:
    """What a device starts with: its parts of the inputs and the parameters."""
    parts = [(part, inputs) for part in program.inputs]
    parts += [(part, state) for part in program.parameters]
    return {part.name: take(of[part.whole], numbers(part.region, sizes)) for part, of in parts}


def _tensor(
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
        "input", name, f"holds {tensor.dtype}, the model takes {declared}", "convert it first"
    )
