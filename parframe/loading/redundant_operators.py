"""Redundant operators of an exported graph: copies, and operators that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from parframe.graph import Arg, Operator
from parframe.loading.canonical_form import starts_at_zero
from parframe.loading.flat_graph import FlatGraph, replace_values

_COPIES = frozenset(
    f"aten.{name}"
    for name in (
        "alias.default", "clone.default", "contiguous.default", "detach.default",
        "detach_.default", "lift_fresh.default", "lift_fresh_copy.default",
    )
)  # fmt: skip
"""Operators that return their argument, or a copy of it."""

_DROPOUTS = frozenset(f"aten.{name}.default" for name in ("dropout", "feature_dropout"))


def remove_redundant(graph: FlatGraph) -> FlatGraph:
    """Remove the operators that return their argument unchanged."""
    kept = []
    same: dict[str, str] = {}
    for operator in graph.operators:
        original = _unchanged_input(operator, graph)
        if original is None:
            kept.append(operator)
        else:
            same[operator.outputs[0]] = original
    return replace_values(attrs.evolve(graph, operators=tuple(kept)), same)


def _unchanged_input(operator: Operator, graph: FlatGraph) -> str | None:
    """Return the argument that an operator returns unchanged, or None."""
    if not operator.inputs or len(operator.outputs) != 1:
        return None
    name = operator.inputs[0]
    if operator.target in _COPIES:
        return name
    if operator.target in _DROPOUTS:
        return None if operator.args["train"] else name
    condition = _POSSIBLY_REDUNDANT.get(operator.target)
    if condition is None or not condition(operator):
        return None
    before, after = graph.tensor(name), graph.tensors[operator.outputs[0]]
    return name if (before.shape, before.dtype) == (after.shape, after.dtype) else None


def _adds_zero(operator: Operator) -> bool:
    return _is_number(operator.args["other"], 0)


def _multiplies_by_one(operator: Operator) -> bool:
    return _is_number(operator.args["other"], 1)


def _always(_: Operator) -> bool:
    return True


def _is_number(arg: Arg, number: int) -> bool:
    return isinstance(arg, int | float) and not isinstance(arg, bool) and arg == number


_POSSIBLY_REDUNDANT: Mapping[str, Callable[[Operator], bool]] = {
    "aten.add.Tensor": _adds_zero,
    "aten.sub.Tensor": _adds_zero,
    "aten.mul.Tensor": _multiplies_by_one,
    "aten.div.Tensor": _multiplies_by_one,
    "aten.slice.Tensor": starts_at_zero,
    "aten.to.dtype": _always,
    "aten.reshape.default": _always,
    "aten.expand.default": _always,
    "aten.flatten.using_ints": _always,
}
"""Operators that may change nothing, each with a condition in addition to equal shape and dtype."""
