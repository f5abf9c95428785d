"""Dtypes that weights and computed buffers are converted to."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from parframe.graph import OperatorGraph, Parameter
from parframe.loading.buffer_data import decode_tensor
from parframe.plan import Slices


def target_dtype(
    stored: str, parameter: Parameter, dtype: torch.dtype | None, graph_dtypes: bool
) -> torch.dtype:
    """Return the dtype that a stored tensor is converted to.

    - ``dtype``: the dtype that floating-point weights are converted to; None keeps the stored one.
    - ``graph_dtypes``: whether floating-point weights get the parameter's dtype, or `dtype` where
      it is wider.
    """
    stored_dtype: torch.dtype = getattr(torch, stored)
    parameter_dtype: torch.dtype = getattr(torch, parameter.dtype)
    if not stored_dtype.is_floating_point:
        return parameter_dtype
    if graph_dtypes:
        return parameter_dtype if dtype is None else torch.promote_types(parameter_dtype, dtype)
    return dtype or stored_dtype


def computed_slices(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    device: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, torch.Tensor]:
    """Return slices of the buffers that the model computes itself, which the graph stores."""
    found = {}
    for name, part in wanted.items():
        parameter = graph.parameters[part.whole]
        if parameter.data is not None:
            found[name] = part.take(convert_buffer(decode_tensor(parameter), dtype)).to(device)
    return found


def convert_buffer(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return a computed buffer for weights of this dtype; 32 bits or more keep at least 32."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    narrow = dtype.itemsize < 4 <= tensor.dtype.itemsize
    return tensor.to(torch.float32 if narrow else dtype)
