"""Canonical form of exported operators: one form each for casts, views, slices and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import sympy

from parframe.graph import Arg, Operator, Ref, Tensor
from parframe.loading.buffer_data import decode_tensor
from parframe.loading.flat_graph import FlatGraph

_LONGEST = 2**63 - 1

_CASTS = frozenset(
    f"aten.{name}"
    for name in (
        "to.dtype", "to.dtype_layout", "to.device", "to.other", "to.prim_other",
        "_to_copy.default", "type_as.default",
    )
)  # fmt: skip

_SHAPED: Mapping[str, str] = {
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten.view_copy.default": "aten.reshape.default",
    "aten.reshape.default": "aten.reshape.default",
    "aten.expand.default": "aten.expand.default",
    "aten.expand_copy.default": "aten.expand.default",
    "aten.broadcast_to.default": "aten.expand.default",
    "aten.expand_as.default": "aten.expand.default",
    "aten.reshape_as.default": "aten.reshape.default",
    "aten.view_as.default": "aten.reshape.default",
}
"""Operators that change the shape of a tensor, and their canonical form, which names the shape.

Views become reshapes, because their argument may be non-contiguous once copies are removed.
"""

_SHAPE_SLOT: Mapping[str, str] = {"aten.reshape.default": "shape", "aten.expand.default": "size"}
"""The argument that names the shape, in the canonical form."""


def canonicalize(graph: FlatGraph) -> FlatGraph:
    """Rewrite casts, ranges, views and slices to one form each, with explicit sizes."""
    return attrs.evolve(
        graph, operators=tuple(_canonical_operator(op, graph) for op in graph.operators)
    )


def _canonical_operator(operator: Operator, graph: FlatGraph) -> Operator:
    result = graph.tensors[operator.outputs[0]]
    if operator.target in _CASTS:
        args: dict[str, Arg] = {"self": operator.args["self"], "dtype": result.dtype}
        return attrs.evolve(operator, target="aten.to.dtype", args=args)
    if operator.target in _SHAPED:
        target = _SHAPED[operator.target]
        args = {"self": operator.args["self"], _SHAPE_SLOT[target]: result.shape}
        return attrs.evolve(operator, target=target, args=args)
    if operator.target == "aten.slice.Tensor":
        return _canonical_slice(operator, graph, result)
    if operator.target.startswith("aten.arange.") and starts_at_zero(operator):
        args = {"end": operator.args["end"], "dtype": result.dtype}
        return attrs.evolve(operator, target="aten.arange.default", args=args)
    if not operator.inputs and "dtype" not in operator.args:
        return attrs.evolve(operator, args={**operator.args, "dtype": result.dtype})
    return operator


def _canonical_slice(operator: Operator, graph: FlatGraph, result: Tensor) -> Operator:
    """Rewrite a slice so that its start counts from the front and its end is within the dim."""
    whole = graph.tensor(operator.inputs[0])
    dim: Any = operator.args.get("dim", 0)
    start: Any = operator.args.get("start", 0)
    size = whole.shape[dim]
    step: Any = operator.args.get("step", 1)
    end: Any = operator.args.get("end", _LONGEST)
    if step == 1 and end == _LONGEST and start != 0:
        start = _plain(size - result.shape[dim])
    elif isinstance(start, int) and start < 0:
        start = max(size + start, 0) if isinstance(size, int) else size + start
    elif not isinstance(start, int) and start.is_negative:
        start = _plain(sympy.Max(size + start, 0))
    if step == 1:
        end = _plain(start + result.shape[dim])
    elif end == _LONGEST:
        end = size
    args: dict[str, Arg] = {
        "self": operator.args["self"], "dim": dim, "start": start, "end": end, "step": step,
    }  # fmt: skip
    return attrs.evolve(operator, args=args)


def index_to_slice(graph: FlatGraph) -> FlatGraph:
    """Replace indexing of a dim by consecutive constant numbers by a slice."""
    return attrs.evolve(
        graph,
        operators=tuple(
            _index_as_slice(op, graph) if op.target == "aten.index.Tensor" else op
            for op in graph.operators
        ),
    )


def _index_as_slice(operator: Operator, graph: FlatGraph) -> Operator:
    indices: Any = operator.args["indices"]
    chosen = [(axis, ref.name) for axis, ref in enumerate(indices) if isinstance(ref, Ref)]
    constant = graph.parameters.get(chosen[0][1]) if len(chosen) == 1 else None
    if constant is None or constant.data is None or len(constant.shape) != 1:
        return operator
    axis = chosen[0][0]
    size = graph.tensor(operator.inputs[0]).shape[axis]
    numbers = decode_tensor(constant).tolist()
    if constant.dtype == "bool" or not numbers or not isinstance(size, int):
        return operator
    first = numbers[0] + size if numbers[0] < 0 else numbers[0]
    if [n + size if n < 0 else n for n in numbers] != list(range(first, first + len(numbers))):
        return operator
    args: dict[str, Arg] = {
        "self": operator.args["self"], "dim": axis, "start": first,
        "end": first + len(numbers), "step": 1,
    }  # fmt: skip
    return attrs.evolve(operator, target="aten.slice.Tensor", args=args)


def starts_at_zero(operator: Operator) -> bool:
    """Return whether a slice or range starts at 0 with step 1."""
    return operator.args.get("start", 0) == 0 and operator.args.get("step", 1) == 1


def _plain(size: Any) -> Any:
    return int(size) if not isinstance(size, int) and size.is_Integer else size
