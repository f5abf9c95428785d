"""Roles of dimensions, which give them their names.

``batch`` and ``sequence`` come from the model's inputs, ``vocab`` from the embedding table and the
outputs, ``heads`` (``kv_heads`` and ``group``) from products of two activations, ``experts`` and
``expert_ffn`` from the experts operator or from batched products of an activation and a weight,
``hidden`` from sums of values that different operators produced. ``ffn`` is produced by one weight
and contracted by another. A ``latent`` is so too, but is contracted into heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from parframe.dims.dimensions import Dimension, interface
from parframe.dims.factors import Node, NodeDim, flatten
from parframe.graph import Block, OperatorGraph
from parframe.rules import Signature
from parframe.rules.signature import labels_of, spell

Dims = Mapping[str, Mapping[str, list[NodeDim]]]
"""For every block and value, its tensor dims."""

LabelDims = Mapping[str, list[NodeDim | None]]
"""For every label of an operator, its occurrences in tensor dims."""

Occurrences = Mapping[str, Mapping[str, LabelDims]]
"""For every block and operator, the occurrences of its labels."""

Signatures = Mapping[str, Mapping[str, Signature | None]]
"""For every block and operator, its signature; None where no rule covers it."""

DeclaredRoles = Mapping[str, Mapping[str, Mapping[str, str]]]
"""For every block and operator, the roles of labels that its rule declares."""

NodeSet = dict[Node, None]
"""Set of nodes in order of observation."""


@attrs.define
class Observations:
    """Nodes by the way in which the graph uses them.

    - ``named``: nodes of the model's inputs, with the names that the loader gave them.
    - ``declared``: nodes with a role that a rule declares.
    - ``weighted``: nodes of weights.
    - ``returned``: nodes of the model's outputs.
    - ``produced``, ``contracted``: nodes that a product with a weight adds to an activation, or
      contracts.
    - ``contracted_into``: for each contracted node, the nodes that are produced in its place.
    - ``batched``, ``produced_batched``: nodes that an activation and a weight both have and keep in
      a product, and nodes that such a product adds.
    - ``looked_up``, ``position_tables``: nodes along which a table is looked up, with inputs of the
      model or with computed numbers.
    - ``heads``: chains of nodes that two activations both have and keep in a product.
    - ``within_heads``: other nodes of these activations.
    - ``summed``: nodes of sums of values that different products gave.
    """

    named: dict[Node, str] = attrs.field(factory=dict)
    declared: dict[Node, str] = attrs.field(factory=dict)
    weighted: NodeSet = attrs.field(factory=dict)
    returned: NodeSet = attrs.field(factory=dict)
    produced: NodeSet = attrs.field(factory=dict)
    contracted: NodeSet = attrs.field(factory=dict)
    contracted_into: dict[Node, NodeSet] = attrs.field(factory=dict)
    batched: NodeSet = attrs.field(factory=dict)
    produced_batched: NodeSet = attrs.field(factory=dict)
    looked_up: NodeSet = attrs.field(factory=dict)
    position_tables: NodeSet = attrs.field(factory=dict)
    heads: list[list[Node]] = attrs.field(factory=list)
    within_heads: NodeSet = attrs.field(factory=dict)
    summed: NodeSet = attrs.field(factory=dict)


def observe(
    graph: OperatorGraph,
    dims: Dims,
    occurrences: Occurrences,
    signatures: Signatures,
    declared: DeclaredRoles,
) -> Observations:
    """Return the observations of a graph's dimensions."""
    observed = Observations()
    _observe_interface(graph, dims, observed)
    for block in graph.blocks.values():
        inputs = {
            own
            for call in graph.calls
            if call.block == block.name
            for own, name in zip(block.inputs, call.inputs, strict=True)
            if name in graph.inputs
        }
        _observe_block(block, inputs, occurrences[block.name], signatures[block.name], observed)
        for operator, label_roles in declared[block.name].items():
            label_dims = occurrences[block.name].get(operator, {})
            for label, role in label_roles.items():
                observed.declared.update(dict.fromkeys(_nodes_of(label_dims, [label]), role))
    return observed


def _observe_interface(graph: OperatorGraph, dims: Dims, observed: Observations) -> None:
    """Add the nodes of the model's inputs, parameters and outputs."""
    outer: dict[str, list[NodeDim]] = {}
    for call in graph.calls:
        block = graph.blocks[call.block]
        for own, name in interface(block, call):
            outer.setdefault(name, dims[block.name][own])
    for name, tensor in graph.inputs.items():
        for dim_name, dim in zip(tensor.axes, outer.get(name, ()), strict=False):
            nodes = list(undivided(dim))
            if dim_name and len(nodes) == 1:
                observed.named.setdefault(nodes[0], dim_name)
    for names, node_set in (
        (graph.parameters, observed.weighted),
        (set(graph.output_names), observed.returned),
    ):
        for name in names:
            for dim in outer.get(name, ()):
                node_set.update(dict.fromkeys(undivided(dim)))


def _observe_block(
    block: Block,
    inputs: set[str],
    occurrences: Mapping[str, LabelDims],
    signatures: Mapping[str, Signature | None],
    observed: Observations,
) -> None:
    """Add what the operators of one block do to the dimensions."""
    weights = set(block.parameters)
    model_inputs = set(inputs)
    producers: dict[str, frozenset[str]] = {value: frozenset([value]) for value in block.inputs}
    for operator in block.operators:
        values = operator.inputs
        signature = signatures[operator.name]
        if values and all(value in weights for value in values):
            weights.update(operator.outputs)
            continue
        activations = [i for i, value in enumerate(values) if value not in weights]
        merged = frozenset().union(*(producers.get(values[i], frozenset()) for i in activations))
        if signature is None:
            producers.update(dict.fromkeys(operator.outputs, merged))
            continue
        label_dims = occurrences[operator.name]
        if signature.moves and values and values[0] in model_inputs:
            model_inputs.update(operator.outputs)
        multiplies = _is_product(signature, len(values))
        if multiplies:
            if len(activations) < len(values):
                _observe_weight_product(signature, activations, label_dims, observed)
                if all("int" in block.tensors[values[i]].dtype for i in activations):
                    from_inputs = any(values[i] in model_inputs for i in activations)
                    table = observed.looked_up if from_inputs else observed.position_tables
                    _observe_look_up(signature, activations, label_dims, table)
            if len(activations) > 1:
                _observe_activation_product(signature, activations, label_dims, observed)
        if _is_sum(signature) and len(activations) > 1:
            left, right = (producers.get(values[i], frozenset()) for i in activations[:2])
            if left and right and not left & right:
                nodes = _nodes_of(label_dims, labels_of(signature.outputs))
                observed.summed.update(dict.fromkeys(nodes))
        if multiplies:
            merged = frozenset([operator.name])
        producers.update(dict.fromkeys(operator.outputs, merged))


def _contracted_labels(signature: Signature) -> frozenset[str]:
    """Return the labels that are in no output."""
    return signature.contracted() | (signature.whole - labels_of(signature.outputs))


def _is_product(signature: Signature, inputs: int) -> bool:
    """Return whether several inputs are multiplied."""
    return bool(_contracted_labels(signature)) and inputs > 1 and not signature.moves


def _is_sum(signature: Signature) -> bool:
    """Return whether inputs are added; an operator that selects among them is not a sum."""
    return (
        any(len(group) > 1 and len(group) == len(signature.inputs) for group in signature.linear)
        and not signature.moves
        and not signature.contracted()
    )


def _labels_by_kind(
    signature: Signature, activations: list[int]
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the labels of activations, of weights and of outputs."""
    weights = tuple(dims for i, dims in enumerate(signature.inputs) if i not in activations)
    return (
        labels_of(tuple(signature.inputs[i] for i in activations)),
        labels_of(weights),
        labels_of(signature.outputs),
    )


def _observe_weight_product(
    signature: Signature, activations: list[int], label_dims: LabelDims, observed: Observations
) -> None:
    """Add a product of an activation and a weight."""
    activation, weight, output = _labels_by_kind(signature, activations)
    produced = list(_nodes_of(label_dims, (weight & output) - activation))
    observed.produced.update(dict.fromkeys(produced))
    batched = list(_nodes_of(label_dims, activation & weight & output))
    if batched and produced:
        observed.batched.update(dict.fromkeys(batched))
        observed.produced_batched.update(dict.fromkeys(produced))
    for node in _nodes_of(label_dims, _contracted_labels(signature) & activation & weight):
        observed.contracted[node] = None
        observed.contracted_into.setdefault(node, {}).update(dict.fromkeys(produced))


def _observe_look_up(
    signature: Signature, activations: list[int], label_dims: LabelDims, table: NodeSet
) -> None:
    """Add the nodes along which integers look up a table of weights."""
    activation, weight, _ = _labels_by_kind(signature, activations)
    nodes = _nodes_of(label_dims, _contracted_labels(signature) & (weight - activation))
    table.update(dict.fromkeys(nodes))


def _observe_activation_product(
    signature: Signature, activations: list[int], label_dims: LabelDims, observed: Observations
) -> None:
    """Add a product of two activations: what both have and keep are heads, with their group."""
    first, second = (labels_of((signature.inputs[i],)) for i in activations[:2])
    activation, _, output = _labels_by_kind(signature, activations)
    kept = first & second & output
    for pattern in signature.inputs[activations[0]]:
        pattern_labels = list(spell(pattern))
        if kept & set(pattern_labels):
            chain = [
                node
                for label in pattern_labels
                for node in _nodes(label_dims.get(label, ())[:1])
                if node in observed.weighted and node not in observed.named
            ]
            if chain and chain not in observed.heads:
                observed.heads.append(chain)
    inner = _nodes_of(label_dims, activation - kept)
    observed.within_heads.update(dict.fromkeys(node for node in inner if node in observed.weighted))


def undivided(dim: Iterable[Node]) -> Iterator[Node]:
    """Yield every undivided node of a tensor dim, also within segments."""
    for node in flatten(list(dim)):
        if node.segments is None:
            yield node
        else:
            for part in node.segments:
                yield from undivided(part)


def _nodes(dims: Iterable[NodeDim | None]) -> Iterator[Node]:
    for dim in dims:
        if dim is not None:
            yield from undivided(dim)


def _nodes_of(label_dims: LabelDims, labels: Iterable[str]) -> Iterator[Node]:
    """Yield the nodes of some labels, in order of the labels."""
    for label in sorted(labels):
        yield from _nodes(label_dims.get(label, ()))


NodeChains = dict[str, list[list[Node]]]
"""For every role, its chains of nodes."""


def assign_roles(
    graph: OperatorGraph,
    dims: Dims,
    occurrences: Occurrences,
    signatures: Signatures,
    declared: DeclaredRoles,
) -> tuple[dict[Node, str], dict[str, Dimension], dict[str, tuple[tuple[str, ...], ...]]]:
    """Return the name of every undivided node, and the dimensions and chains of ``Dimensions``."""
    roles, chains = _find_roles(observe(graph, dims, occurrences, signatures, declared))
    names = _name_nodes(graph, dims, chains)
    return (
        names,
        {name: Dimension(name, roles.get(node, ""), node.size) for node, name in names.items()},
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
            parts = [role, "group", *(f"group.{i}" for i in range(2, len(chain)))][: len(chain)]
            if role == "heads" and len(chain) > 1:
                parts[0] = "kv_heads"
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
