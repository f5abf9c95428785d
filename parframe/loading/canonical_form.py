"""Canonical form of exported operators: one form each for casts, views, slices and ranges."""

from __future__ import annotations

from typing import Any

import attrs

from parframe.graph import Arg, Operator, Ref
from parframe.loading.buffer_data import decode_tensor
from parframe.loading.flat_graph import FlatGraph
from parframe.rules import Site
from parframe.rules.indexing import INDEX
from parframe.rules.table import rule_of


def canonicalize(graph: FlatGraph) -> FlatGraph:
    """Rewrite casts, ranges, views and slices to one form each, with explicit sizes."""
    return attrs.evolve(
        graph, operators=tuple(_canonical_operator(op, graph) for op in graph.operators)
    )


def _canonical_operator(operator: Operator, graph: FlatGraph) -> Operator:
    rule = rule_of(operator)
    if rule is not None and rule.canonical is not None:
        inputs = tuple(graph.tensor(name) for name in operator.inputs)
        outputs = tuple(graph.tensors[name] for name in operator.outputs)
        canonical = rule.canonical(Site(operator, inputs, outputs))
        if canonical is not operator:
            return canonical
    if not operator.inputs and "dtype" not in operator.args:
        dtype = graph.tensors[operator.outputs[0]].dtype
        return attrs.evolve(operator, args={**operator.args, "dtype": dtype})
    return operator


def index_to_slice(graph: FlatGraph) -> FlatGraph:
    """Replace indexing of a dim by consecutive constant numbers by a slice."""
    return attrs.evolve(
        graph,
        operators=tuple(
            _index_as_slice(op, graph) if op.target == INDEX else op for op in graph.operators
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
