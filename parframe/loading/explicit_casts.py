"""Casts that a model's code names explicitly, found by exporting a float32 model in float64.

A cast to float32 that the code names (in a norm, a softmax) does nothing in a float32 model, and an
exported graph does not tell it from a cast to whatever dtype the model has. In a float64 model they
differ: the explicit casts stay in the graph, so that the graph computes what the model computes in
any dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from parframe.graph import Arg, Operator, Parameter
from parframe.loading.buffer_data import decode_tensor, encode_tensor
from parframe.loading.flat_graph import FlatGraph, remove_unused, replace_values
from parframe.rules.pointwise import CAST

_NARROWER = {"float64": "float32", "complex128": "complex64"}

_LIMITS: Mapping[float, float] = {
    getattr(torch.finfo(torch.float64), name): getattr(torch.finfo(torch.float32), name)
    for name in ("min", "max", "eps", "tiny")
}
"""Limits of float64 that a model takes from its dtype, and those of float32."""


def is_float32(model: torch.nn.Module) -> bool:
    """Return whether all floating-point tensors of a model are float32."""
    tensors = [*model.parameters(), *model.buffers()]
    return all(t.dtype == torch.float32 for t in tensors if t.is_floating_point())


def to_float64(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert float32 tensors to float64, and return the others unchanged."""
    return {
        name: tensor.double() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }


def restore_float32(graph: FlatGraph) -> FlatGraph:
    """Convert a graph exported in float64 to that of the float32 model, explicit casts kept."""
    same = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if operator.target == CAST and _is_widening(operator, graph)
    }
    operators = tuple(
        attrs.evolve(op, args={slot: _narrow_argument(arg) for slot, arg in op.args.items()})
        for op in graph.operators
        if op.outputs[0] not in same
    )
    result = attrs.evolve(
        graph,
        operators=operators,
        tensors={name: _narrow_tensor(tensor) for name, tensor in graph.tensors.items()},
        inputs={name: _narrow_tensor(tensor) for name, tensor in graph.inputs.items()},
        parameters={name: _narrow_parameter(p) for name, p in graph.parameters.items()},
    )
    return remove_unused(replace_values(result, same))


def _is_widening(operator: Operator, graph: FlatGraph) -> bool:
    """Return whether a cast does nothing in the float32 model."""
    before = graph.tensor(operator.inputs[0]).dtype
    return _NARROWER.get(graph.tensors[operator.outputs[0]].dtype) == before


def _narrow_argument(arg: Arg) -> Arg:
    if isinstance(arg, tuple):
        return tuple(_narrow_argument(part) for part in arg)
    if isinstance(arg, str):
        return _NARROWER.get(arg, arg)
    if isinstance(arg, float) and math.isfinite(arg):
        return _LIMITS.get(arg, arg)
    return arg


def _narrow_tensor(tensor: Any) -> Any:
    return attrs.evolve(tensor, dtype=_NARROWER.get(tensor.dtype, tensor.dtype))


def _narrow_parameter(parameter: Parameter) -> Parameter:
    if parameter.data is not None and parameter.dtype == "float64":
        parameter = attrs.evolve(parameter, data=encode_tensor(decode_tensor(parameter).float()))
    narrow: Parameter = _narrow_tensor(parameter)
    return narrow
