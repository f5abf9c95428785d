"""Contents of buffers and constants, as base64 text that a graph stores."""

from __future__ import annotations

import base64
import ctypes
import math

import torch

from parframe.errors import ParframeError
from parframe.graph import Parameter


def encode_tensor(tensor: torch.Tensor) -> str:
    """Return a tensor's little-endian bytes in base64."""
    whole = tensor.detach().cpu().contiguous()
    return base64.b64encode(
        ctypes.string_at(whole.data_ptr(), whole.nbytes) if whole.nbytes else b""
    ).decode("ascii")


def decode_tensor(parameter: Parameter) -> torch.Tensor:
    """Return the contents of a buffer or constant that the graph itself stores.

    Raises
    ------
    ParframeError
        Of kind ``graph`` if it stores none, or another number of bytes than the shape needs.
    """
    dtype = getattr(torch, parameter.dtype)
    shape = [int(size) for size in parameter.shape]
    try:
        content = bytearray(base64.b64decode(parameter.data or "", validate=True))
    except ValueError:
        content = bytearray()
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ParframeError(
            "graph",
            parameter.name,
            "its data does not have the number of bytes that its shape needs",
            "load the model again",
        )
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype).reshape(shape)
