"""Which casts a model's code names itself: seen by exporting a float32 model in float64.

Where the code casts to float32 by name (a norm, a softmax), that does nothing in a float32 model,
and an exported graph cannot tell such a cast from one to whatever dtype the model has. In float64
they differ; the casts by name are kept, so that the graph computes in any dtype what the model
does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from parframe.graph import Arg, Operator, Parameter
from parframe.loading.exported_program import decode, encode
from parframe.loading.flat_graph import Program, live, replace

_NARROWER = {"float64": "float32", "complex128": "complex64"}

_LIMITS: Mapping[float, float] = {
    getattr(torch.finfo(torch.float64), name): getattr(torch.finfo(torch.float32), name)
    for name in ("min", "max", "eps", "tiny")
}
"""Numbers of float64 that a model takes from its dtype, and those of float32."""


def is_single(model: torch.nn.Module) -> bool:
    """Whether all floating-point tensors of a model are float32."""
    tensors = [*model.parameters(), *model.buffers()]
    return all(t.dtype == torch.float32 for t in tensors if t.is_floating_point())


def doubled(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, float32 ones in float64."""
    return {
        name: tensor.double() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }


def narrowed(program: Program) -> Program:
    """A program exported in float64 as that of the float32 model, with its casts by name."""
    same = {
        operator.outputs[0]: operator.inputs[0]
        for operator in program.operators
        if operator.target == "aten.to.dtype" and _widens(operator, program)
    }
    operators = tuple(
        attrs.evolve(op, args={slot: _narrow(arg) for slot, arg in op.args.items()})
        for op in program.operators
        if op.outputs[0] not in same
    )
    result = attrs.evolve(
        program,
        operators=operators,
        tensors={name: _retyped(tensor) for name, tensor in program.tensors.items()},
        inputs={name: _retyped(tensor) for name, tensor in program.inputs.items()},
        parameters={name: _parameter(tensor) for name, tensor in program.parameters.items()},
    )
    return live(replace(result, same))


def _widens(operator: Operator, program: Program) -> bool:
    before = program.tensor(operator.inputs[0]).dtype
    return _NARROWER.get(program.tensors[operator.outputs[0]].dtype) == before


def _narrow(arg: Arg) -> Arg:
    if isinstance(arg, tuple):
        return tuple(_narrow(part) for part in arg)
    if isinstance(arg, str):
        return _NARROWER.get(arg, arg)
    if isinstance(arg, float) and math.isfinite(arg):
        return _LIMITS.get(arg, arg)
    return arg


def _retyped(tensor: Any) -> Any:
    return attrs.evolve(tensor, dtype=_NARROWER.get(tensor.dtype, tensor.dtype))


def _parameter(parameter: Parameter) -> Parameter:
    if parameter.data is not None and parameter.dtype == "float64":
        parameter = attrs.evolve(parameter, data=encode(decode(parameter).float()))
    narrow: Parameter = _retyped(parameter)
    return narrow
