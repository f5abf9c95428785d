"""Roles of dimensions, which give them their names.

``batch`` and ``sequence`` come from the model's inputs, ``vocab`` from the embedding table and the
outputs, ``heads`` (``kv_heads`` and ``group``) from products of two activations, ``experts`` and
``expert_ffn`` from the experts operator or from batched products of an activation and a weight,
``hidden`` from sums of values that different operators produced. ``ffn`` is produced by one weight
and contracted by another. A ``latent`` is so too, but is contracted into heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parframe.dims.factors import Node
from parframe.dims.observations import (
    DeclaredRoles,
    Dims,
    Observations,
    Occurrences,
    Signatures,
    observe,
    undivided,
)
from parframe.graph import OperatorGraph

NodeChains = dict[str, list[list[Node]]]
"""For every role, its chains of nodes."""


def assign_roles(
    graph: OperatorGraph,
    dims: Dims,
    occurrences: Occurrences,
    signatures: Signatures,
    declared: DeclaredRoles,
) -> tuple[dict[Node, str], dict[str, Any], dict[str, tuple[tuple[str, ...], ...]]]:
    """Return the name of every undivided node, and the dimensions and chains of ``Dimensions``.

    Dimensions are ``name -> (name, role, size)``, in order of first appearance.
    """
    roles, chains = _find_roles(observe(graph, dims, occurrences, signatures, declared))
    names = _name_nodes(graph, dims, chains)
    return (
        names,
        {name: (name, roles.get(node, ""), node.size) for node, name in names.items()},
        {
            role: tuple(tuple(names[node] for node in chain) for chain in role_chains)
            for role, role_chains in chains.items()
        },
    )


def _find_roles(observed: Observations) -> tuple[dict[Node, str], NodeChains]:
    """Return the role of every node that has one, and the chains of every role."""
    roles: dict[Node, str] = {}
    chains: NodeChains = {}

    def assign(role: str, chain: list[Node]) -> None:
        without_role = [node for node in chain if node not in roles]
        if without_role and len(without_role) == len(chain):
            chains.setdefault(role, []).append(chain)
            roles.update(dict.fromkeys(chain, role))

    for node, role in (*observed.named.items(), *observed.declared.items()):
        assign(role, [node])
    for chain in sorted(observed.heads, key=len, reverse=True):
        assign("heads", [node for node in chain if roles.get(node) != "heads"])
    for role, nodes in _nodes_by_role(observed):
        for node in nodes:
            assign(role, [node])
    for node in observed.produced:
        if node in observed.contracted:
            contracted_into = {roles.get(other) for other in observed.contracted_into[node]}
            assign("latent" if "heads" in contracted_into else "ffn", [node])
    return roles, chains


def _nodes_by_role(observed: Observations) -> Iterable[tuple[str, list[Node]]]:
    """Return the nodes of roles that single nodes have, the strongest role first."""
    products = {**observed.produced, **observed.contracted}
    outputs = [node for node in observed.returned if node in observed.produced]
    return (
        ("hidden", [node for node in observed.summed if node in products]),
        ("vocab", [*observed.looked_up, *outputs]),
        ("positions", list(observed.position_tables)),
        ("head_dim", list(observed.within_heads)),
        ("experts", list(observed.batched)),
        ("expert_ffn", [n for n in observed.produced_batched if n in observed.contracted]),
    )


def _name_nodes(graph: OperatorGraph, dims: Dims, chains: NodeChains) -> dict[Node, str]:
    """Return the name of every undivided node: its role, or ``dim`` with a number."""
    names: dict[Node, str] = {}
    for role, role_chains in chains.items():
        for number, chain in enumerate(role_chains, 1):
            parts = [role] if len(chain) == 1 else _chain_names(role, len(chain))
            for node, part in zip(chain, parts, strict=True):
                names[node] = part if number == 1 else f"{part}.{number}"
    others = 0
    for block in graph.blocks.values():
        for value in block.tensors:
            for dim in dims[block.name][value]:
                for node in undivided(dim):
                    if node not in names:
                        others += 1
                        names[node] = f"dim.{others}"
    return names


def _chain_names(role: str, count: int) -> list[str]:
    """Return names for a chain of dimensions: key-value heads first, then their group."""
    first = "kv_heads" if role == "heads" else role
    return [first, "group", *(f"group.{i}" for i in range(2, count))]
