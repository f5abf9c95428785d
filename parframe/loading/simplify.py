"""Simplification of an exported graph to functional operators in canonical form."""

from __future__ import annotations

from parframe.loading.canonical_form import canonicalize, index_to_slice
from parframe.loading.flat_graph import FlatGraph, remove_unused
from parframe.loading.in_place import replace_in_place
from parframe.loading.random_operators import check_deterministic
from parframe.loading.redundant_operators import remove_redundant
from parframe.loading.shared_constants import share_computed_constants, share_stored_constants


def simplify(graph: FlatGraph) -> FlatGraph:
    """Simplify a graph; what it computes stays the same.

    Raises
    ------
    AliasedWriteError
        If an operator writes into a tensor that another operator may read.
    ParframeError
        If an operator draws random numbers.
    """
    graph = remove_unused(replace_in_place(remove_redundant(canonicalize(graph))))
    graph = share_stored_constants(share_computed_constants(index_to_slice(graph)))
    graph = remove_unused(graph)
    check_deterministic(graph)
    return graph
