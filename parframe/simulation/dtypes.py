"""Dtypes that a model is run in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from parframe.errors import ParframeError, did_you_mean
from parframe.graph import OperatorGraph

FLOATS = ("float64", "float32", "bfloat16", "float16")
"""Names of the dtypes that a model can be run in."""


def parse_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return the floating-point dtype of a name, which must be one of `FLOATS`; None for None."""
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
    dtype: torch.dtype = getattr(torch, text)
    return dtype


def find_float_dtype(graph: OperatorGraph) -> str | None:
    """Return the floating-point dtype of most parameter elements of a graph; None without any."""
    elements: Counter[str] = Counter()
    for parameter in graph.parameters.values():
        if parameter.kind == "parameter" and parameter.dtype in FLOATS:
            elements[parameter.dtype] += int(parameter.elements)
    return max(elements, key=lambda name: elements[name], default=None)


def find_weights_dtype(
    graph: OperatorGraph, state: Mapping[str, torch.Tensor]
) -> torch.dtype | None:
    """Return the floating-point dtype of given weights; None if they have several or none."""
    dtypes = {
        state[name].dtype
        for name, parameter in graph.parameters.items()
        if parameter.kind == "parameter" and state[name].is_floating_point()
    }
    return dtypes.pop() if len(dtypes) == 1 else None
