"""Limits of the sizes of inputs for which a graph is valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
"""Distance beyond a limit at which the model must fail.

torch.export sets the limit one below the length of a table.
"""


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
    most = dict(_symbol_limits(graph.inputs.values(), limits))

    def simplify_argument(arg: Arg) -> Arg:
        if isinstance(arg, tuple):
            return tuple(simplify_argument(part) for part in arg)
        return simplify_bounds(arg, most) if isinstance(arg, sympy.Expr) else arg

    return attrs.evolve(
        graph,
        remarks=(*graph.remarks, *_describe(limits)),
        inputs={name: _limit_input(tensor, limits) for name, tensor in graph.inputs.items()},
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


def _describe(limits: SizeLimits) -> Iterator[str]:
    """Yield the limits as remarks."""
    for name, size in limits.least.items():
        yield f"the graph is valid for {name} of {size} or more"
    for name, size in limits.most.items():
        yield f"the graph is valid for {name} up to {size}"


def _symbol_limits(inputs: Iterable[Input], limits: SizeLimits) -> Iterator[tuple[str, int]]:
    """Yield the symbols of inputs with their largest values."""
    for tensor in inputs:
        for size, dim in zip(tensor.shape, tensor.axes, strict=False):
            if dim in limits.most and isinstance(size, sympy.Symbol):
                yield size.name, limits.most[dim]


def _limit_input(tensor: Input, limits: SizeLimits) -> Input:
    return attrs.evolve(
        tensor, least=_dim_limits(tensor, limits.least), most=_dim_limits(tensor, limits.most)
    )


def _dim_limits(tensor: Input, limits: Mapping[str, int]) -> tuple[int | None, ...]:
    """Return the limit of each dim of an input, or an empty tuple if no dim has one."""
    values = tuple(limits.get(dim) for dim in tensor.axes)
    return values if any(limit is not None for limit in values) else ()
