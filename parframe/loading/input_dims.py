"""Names of the dims of example inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError

DynamicDims = Mapping[str, Mapping[int, str]]
"""For each input, the dims that may vary in size, with names."""


def name_input_dims(
    module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: DynamicDims | None
) -> dict[str, tuple[str, ...]]:
    """Name the dims of example inputs; a dim without a name is ``""``.

    Without `dynamic`, the first dim of all inputs is ``batch`` if it has the same size in all.

    Raises
    ------
    ParframeError
        If an input is not a tensor or not an argument of the module, or a dim does not exist.
    """
    _check_inputs(module, inputs)
    if dynamic is None:
        leading = {tensor.shape[0] for tensor in inputs.values() if tensor.dim()}
        dynamic = {name: {0: "batch"} for name in inputs} if len(leading) == 1 else {}
    else:
        _check_dynamic(inputs, dynamic)
    return {
        name: tuple(dynamic.get(name, {}).get(dim, "") for dim in range(tensor.dim()))
        for name, tensor in inputs.items()
    }


def _check_inputs(module: torch.nn.Module, inputs: Mapping[str, Any]) -> None:
    """Refuse example inputs that are not tensors, or that the module's forward does not take."""
    signature = inspect.signature(module.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            raise ParframeError(
                "input", name, f"is a {type(value).__name__}, not a tensor", "give example tensors"
            )
        if name not in signature and not takes_any:
            raise ParframeError(
                "input",
                name,
                f"is not an argument of {type(module).__name__}.forward, which takes"
                f" {', '.join(signature)}",
                "name the inputs as the forward does",
            )


def _check_dynamic(inputs: Mapping[str, torch.Tensor], dynamic: DynamicDims) -> None:
    """Refuse dims that the example inputs do not have, and names that are not identifiers."""
    for name, named in dynamic.items():
        for dim, label in named.items():
            if name not in inputs or not 0 <= dim < inputs[name].dim():
                what = f"no example input {name!r} has a dim {dim}"
            elif not label.isidentifier():
                what = f"{label!r} is not a name for dim {dim}"
            else:
                continue
            raise ParframeError(
                "input", f"dynamic[{name!r}]", what, 'write dynamic={"x": {0: "batch"}}'
            )
