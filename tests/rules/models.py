"""Operator calls of loaded models, with symbols for sizes and tensors in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch

from parframe.graph import Operator, OperatorGraph, Ref, Tensor
from parframe.loading.buffer_data import decode_tensor
from parframe.rules import Site
from parframe.simulation.interpreter import execute
from parframe.sizes import evaluate
from rules.calls import Call

_NARROW = ("float32", "float16", "bfloat16")


def graph_calls(graph: OperatorGraph, values: Mapping[str, int]) -> Iterator[Call]:
    """Yield every call of every distinct block of a graph, with tensors from random inputs."""
    env: dict[str, torch.Tensor] = {}
    known: dict[str, Tensor] = {}
    for name, tensor in (*graph.inputs.items(), *graph.parameters.items()):
        known[name] = described(tensor, name)
        computed = getattr(tensor, "data", None) is not None
        env[name] = _wide(decode_tensor(tensor)) if computed else _drawn(tensor, values)
    done: set[tuple[str, str]] = set()
    for call, operator in graph.expand():
        block = graph.blocks[call.block]
        names = call.names(block)
        known.update({names[own]: described(t, names[own]) for own, t in block.tensors.items()})
        operator = attrs.evolve(operator, args={k: _double(a) for k, a in operator.args.items()})
        results = execute(operator, env, values, torch.float64)
        env.update(zip(operator.outputs, results, strict=True))
        key = (call.block, operator.name.removeprefix(call.name))
        if key not in done:
            done.add(key)
            yield _call(operator, known, env, values)


def described(tensor: Tensor, name: str) -> Tensor:
    """Return the tensor in double precision."""
    return Tensor(name, tensor.shape, "float64" if tensor.dtype in _NARROW else tensor.dtype)


def _double(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return tuple(_double(part) for part in arg)
    return "float64" if isinstance(arg, str) and arg in _NARROW else arg


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _drawn(tensor: Tensor, values: Mapping[str, int]) -> torch.Tensor:
    shape = tuple(evaluate(size, values) for size in tensor.shape)
    if tensor.dtype in (*_NARROW, "float64"):
        return torch.randn(shape, dtype=torch.float64) * (shape[-1] ** -0.5 if shape else 1)
    return torch.randint(3 if tensor.dtype != "bool" else 0, 5, shape).to(
        getattr(torch, tensor.dtype)
    )


def _call(
    operator: Operator,
    known: Mapping[str, Tensor],
    env: Mapping[str, torch.Tensor],
    values: Mapping[str, int],
) -> Call:
    """Return the call with a distinct name for each input."""
    inputs: dict[str, torch.Tensor] = {}
    taken: list[Tensor] = []

    def walk(arg: Any) -> Any:
        if isinstance(arg, tuple):
            return tuple(walk(part) for part in arg)
        if not isinstance(arg, Ref):
            return arg
        name = f"x{len(inputs)}"
        inputs[name] = env[arg.name]
        taken.append(attrs.evolve(known[arg.name], name=name))
        return Ref(name)

    args = {key: walk(arg) for key, arg in operator.args.items()}
    outputs = {name: env[name] for name in operator.outputs}
    given = tuple(
        Tensor(name, known[name].shape, str(env[name].dtype).removeprefix("torch."))
        for name in outputs
    )
    own = attrs.evolve(operator, args=args)
    return Call(Site(own, tuple(taken), given), inputs, outputs, values)
