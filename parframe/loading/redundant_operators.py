"""Redundant operators of an exported graph: copies, and operators that change nothing."""

from __future__ import annotations

import attrs

from parframe.graph import Operator
from parframe.loading.flat_graph import FlatGraph, replace_values
from parframe.rules.table import rule_of


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
    rule = rule_of(operator)
    if rule is None or rule.identity is None or not rule.identity(operator):
        return None
    name = operator.inputs[0]
    before, after = graph.tensor(name), graph.tensors[operator.outputs[0]]
    return name if (before.shape, before.dtype) == (after.shape, after.dtype) else None
