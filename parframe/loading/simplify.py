"""Simplification of an exported graph to functional operators in canonical form."""

from __future__ import annotations

import attrs

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.loading.canonical_form import canonicalize, index_to_slice
from parframe.loading.flat_graph import FlatGraph, remove_unused, replace_values
from parframe.loading.in_place import replace_in_place
from parframe.loading.random_operators import check_deterministic
from parframe.loading.shared_constants import share_computed_constants, share_stored_constants
from parframe.rules.table import rule_of


def simplify(graph: FlatGraph) -> FlatGraph:
    """Simplify a graph; what it computes stays the same.

    Raises
    ------
    AliasedWriteError
        If an operator writes into a tensor that another operator may read.
    ParframeError
        If an operator draws random numbers, or an input and a weight have the same name.
    """
    for name in graph.inputs.keys() & graph.parameters.keys():
        raise ParframeError(
            "load", name, "an input and a weight have the same name", "rename one of them"
        )
    graph = remove_unused(replace_in_place(_remove_redundant(canonicalize(graph))))
    graph = share_stored_constants(share_computed_constants(index_to_slice(graph)))
    graph = remove_unused(graph)
    check_deterministic(graph)
    return graph


def _remove_redundant(graph: FlatGraph) -> FlatGraph:
    """Remove the operators that return their argument unchanged: copies, casts to its dtype."""
    same = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if _is_redundant(operator, graph)
    }
    kept = tuple(op for op in graph.operators if same.keys().isdisjoint(op.outputs))
    return replace_values(attrs.evolve(graph, operators=kept), same)


def _is_redundant(operator: Operator, graph: FlatGraph) -> bool:
    rule = rule_of(operator)
    if not operator.inputs or len(operator.outputs) != 1 or rule is None:
        return False
    before, after = graph.tensor(operator.inputs[0]), graph.tensors[operator.outputs[0]]
    same_form = (before.shape, before.dtype) == (after.shape, after.dtype)
    return same_form and rule.identity is not None and rule.identity(operator)
