"""Limits of the sizes of inputs for which a graph is valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import sympy
import torch

from parframe.graph import Arg, Input
from parframe.loading.flat_graph import FlatGraph
from parframe.sizes import simplify_bounds

_LARGEST = 2**20
"""The largest size to try."""

_MARGIN = 2
"""Distance beyond a limit, one below the length of a table, at which the model must fail."""


@attrs.frozen
class SizeLimits:
    """Smallest and largest sizes of dims, by the names of the dims."""

    least: Mapping[str, int] = attrs.field(factory=dict)
    most: Mapping[str, int] = attrs.field(factory=dict)


def find_limit(
    module: torch.nn.Module,
    make_inputs: Callable[[int], Mapping[str, Any]],
    is_valid: Callable[[Mapping[str, Any]], bool],
    known: int,
) -> int | None:
    """Find the largest size of a dim at which an export is valid, if the model ends there too.

    The example inputs that `make_inputs` makes with a size `known` are valid. The result is None if
    there is no limit, or if the model runs beyond it.
    """
    high = known
    while is_valid(make_inputs(high)):
        known, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - known > 1:
        middle = (known + high) // 2
        known, high = (middle, high) if is_valid(make_inputs(middle)) else (known, middle)
    ends = runs(module, make_inputs(known)) and not runs(module, make_inputs(known + _MARGIN))
    return known if ends else None


def runs(module: torch.nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Return whether a model accepts inputs."""
    try:
        with torch.no_grad():
            module(**inputs)
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


def apply_limits(graph: FlatGraph, limits: SizeLimits) -> FlatGraph:
    """Record limits in a graph's inputs, and simplify its sizes within them."""
    if not limits.least and not limits.most:
        return graph
    most = {
        size.name: limits.most[dim]
        for tensor in graph.inputs.values()
        for size, dim in zip(tensor.shape, tensor.axes, strict=False)
        if dim in limits.most and isinstance(size, sympy.Symbol)
    }

    def simplify_argument(arg: Arg) -> Arg:
        if isinstance(arg, tuple):
            return tuple(simplify_argument(part) for part in arg)
        return simplify_bounds(arg, most) if isinstance(arg, sympy.Expr) else arg

    return attrs.evolve(
        graph,
        remarks=(
            *graph.remarks,
            *(f"the graph is valid for {dim} of {n} or more" for dim, n in limits.least.items()),
            *(f"the graph is valid for {dim} up to {n}" for dim, n in limits.most.items()),
        ),
        inputs={
            name: attrs.evolve(
                tensor,
                least=_dim_limits(tensor, limits.least),
                most=_dim_limits(tensor, limits.most),
            )
            for name, tensor in graph.inputs.items()
        },
        operators=tuple(
            attrs.evolve(op, args={slot: simplify_argument(arg) for slot, arg in op.args.items()})
            for op in graph.operators
        ),
        tensors={
            name: attrs.evolve(
                tensor, shape=tuple(simplify_bounds(size, most) for size in tensor.shape)
            )
            for name, tensor in graph.tensors.items()
        },
    )


def _dim_limits(tensor: Input, limits: Mapping[str, int]) -> tuple[int | None, ...]:
    """Return the limit of each dim of an input, or an empty tuple if no dim has one."""
    values = tuple(limits.get(dim) for dim in tensor.axes)
    return values if any(limit is not None for limit in values) else ()
