"""Example inputs of transformers models, the names of their dims, and positions as an input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.loading.input_dims import DynamicDims, name_input_dims

POSITIONS = "position_ids"
"""The argument in which transformers models take the positions of tokens."""


def make_example_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Make the model's main input, in example sizes."""
    name = model.main_input_name
    if name == "input_ids":
        return {name: torch.zeros(3, 7, dtype=torch.long)}
    if name == "pixel_values":
        size = getattr(model.config, "image_size", None)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        if isinstance(height, int) and isinstance(width, int):
            channels = getattr(model.config, "num_channels", 3)
            return {name: torch.zeros(3, channels, height, width, dtype=model.dtype)}
    raise ParframeError(
        "input",
        type(model).__name__,
        f"its configuration does not give the shape of its input {name!r}",
        "give `inputs` and `dynamic`",
    )


def name_dims(
    model: Any, inputs: Mapping[str, torch.Tensor], dynamic: DynamicDims | None
) -> dict[str, tuple[str, ...]]:
    """Name the dims of inputs: the first is the batch, the second of token ids the sequence."""
    dims = name_input_dims(model, inputs, dynamic)
    if dynamic is not None:
        return dims
    lengths = {tensor.shape[1] for tensor in inputs.values() if _is_tokens(tensor)}
    return {
        name: (*names[:1], "sequence") if _is_tokens(inputs[name]) and len(lengths) == 1 else names
        for name, names in dims.items()
    }


def _is_tokens(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and not tensor.dtype.is_floating_point


def takes_positions(model_class: Any, inputs: Mapping[str, Any] | None) -> bool:
    """Return whether a model can take positions as an input in addition to its tokens."""
    has_argument = POSITIONS in inspect.signature(model_class.forward).parameters
    takes_tokens = getattr(model_class, "main_input_name", None) == "input_ids"
    return has_argument and takes_tokens and inputs is None


def check_takes_positions(model_class: Any, inputs: Mapping[str, Any] | None) -> None:
    """Refuse a model that has no argument for positions, or whose example inputs are given."""
    if takes_positions(model_class, inputs):
        return
    has_argument = POSITIONS in inspect.signature(model_class.forward).parameters
    what, option = f": its forward takes no {POSITIONS}", "positions"
    if has_argument:
        what, option = " when example inputs are given", "inputs"
    raise ParframeError(
        "load",
        model_class.__name__,
        f"its positions cannot be an input{what}",
        f"load it without `{option}`",
    )
