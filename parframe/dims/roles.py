"""Roles: a dimension is called after what it does in the model.

``batch`` and ``sequence`` come from the model's inputs, ``vocab`` from the embedding table and the
outputs, ``heads`` (``kv_heads`` and ``group``) from products between activations, ``experts`` and
``expert_ffn`` from the experts operator, or from products of an activation and a weight side by
side, ``hidden`` from sums of what different operators produced. ``ffn`` is produced by one weight
and contracted by another; a ``latent`` too, but what it is contracted into are heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from parframe.dims.factors import Node, NodeAxis, flatten
from parframe.graph import Block, Operator, OperatorGraph
from parframe.rules import Signature
from parframe.rules.signature import labels_of, spell

Axes = Mapping[str, Mapping[str, list[NodeAxis]]]
Occurrences = Mapping[str, Mapping[str, Mapping[str, list[NodeAxis | None]]]]
Signatures = Mapping[str, Mapping[str, Signature | None]]
Told = Mapping[str, Mapping[str, Mapping[str, str]]]
"""For every block and operator, the roles of letters that its rule tells."""


@attrs.define
class _Facts:
    """What the walk saw the dimensions do."""

    given: dict[Node, str] = attrs.field(factory=dict)
    told: dict[Node, str] = attrs.field(factory=dict)
    beside: dict[Node, None] = attrs.field(factory=dict)
    produced_beside: dict[Node, None] = attrs.field(factory=dict)
    looked_up: dict[Node, None] = attrs.field(factory=dict)
    counted: dict[Node, None] = attrs.field(factory=dict)
    heads: list[list[Node]] = attrs.field(factory=list)
    within_heads: dict[Node, None] = attrs.field(factory=dict)
    produced: dict[Node, None] = attrs.field(factory=dict)
    contracted: dict[Node, None] = attrs.field(factory=dict)
    became: dict[Node, dict[Node, None]] = attrs.field(factory=dict)
    summed: dict[Node, None] = attrs.field(factory=dict)
    returned: dict[Node, None] = attrs.field(factory=dict)
    weighted: dict[Node, None] = attrs.field(factory=dict)


def undivided(axis: Iterable[Node]) -> Iterator[Node]:
    """Every undivided node of an axis, also within segments."""
    for node in flatten(list(axis)):
        if node.segments is None:
            yield node
        else:
            for part in node.segments:
                yield from undivided(part)


def assign_roles(
    graph: OperatorGraph,
    axes: Axes,
    occurrences: Occurrences,
    signatures: Signatures,
    told: Told,
) -> tuple[dict[Node, str], dict[str, Any], dict[str, tuple[tuple[str, ...], ...]]]:
    """Name every undivided node.

    Returns
    -------
    names
        The name of every node.
    dimensions
        ``name -> (name, role, size)``, in order of first appearance.
    chains
        ``role -> chains``; see ``Dimensions``.
    """
    facts = _gather(graph, axes, occurrences, signatures, told)
    roles: dict[Node, str] = {}
    chains: dict[str, list[list[Node]]] = {}

    def give(role: str, chain: list[Node]) -> None:
        fresh = [node for node in chain if node not in roles]
        if fresh and len(fresh) == len(chain):
            chains.setdefault(role, []).append(chain)
            roles.update(dict.fromkeys(chain, role))

    for node, role in (*facts.given.items(), *facts.told.items()):
        give(role, [node])
    for chain in sorted(facts.heads, key=len, reverse=True):
        give("heads", [node for node in chain if roles.get(node) != "heads"])
    for role, nodes in (
        ("hidden", [n for n in facts.summed if n in facts.produced or n in facts.contracted]),
        ("vocab", [*facts.looked_up, *(n for n in facts.returned if n in facts.produced)]),
        ("positions", list(facts.counted)),
        ("head_dim", list(facts.within_heads)),
        ("experts", list(facts.beside)),
        ("expert_ffn", [n for n in facts.produced_beside if n in facts.contracted]),
    ):
        for node in nodes:
            give(role, [node])
    for node in facts.produced:
        if node in facts.contracted:
            into = {roles.get(other) for other in facts.became[node]}
            give("latent" if into & {"heads"} else "ffn", [node])
    return _names(graph, axes, roles, chains)


def _names(
    graph: OperatorGraph,
    axes: Axes,
    roles: dict[Node, str],
    chains: dict[str, list[list[Node]]],
) -> tuple[dict[Node, str], dict[str, Any], dict[str, tuple[tuple[str, ...], ...]]]:
    names: dict[Node, str] = {}
    for role, found in chains.items():
        for number, chain in enumerate(found, 1):
            parts = [role] if len(chain) == 1 else _parts_of(role, len(chain))
            for node, part in zip(chain, parts, strict=True):
                names[node] = part if number == 1 else f"{part}.{number}"
    others = 0
    for block in graph.blocks.values():
        for value in block.tensors:
            for axis in axes[block.name][value]:
                for node in undivided(axis):
                    if node not in names:
                        others += 1
                        names[node] = f"dim.{others}"
    dimensions = {name: (name, roles.get(node, ""), node.size) for node, name in names.items()}
    return (
        names,
        dimensions,
        {
            role: tuple(tuple(names[node] for node in chain) for chain in found)
            for role, found in chains.items()
        },
    )


def _parts_of(role: str, count: int) -> list[str]:
    """Names for dimensions split one after the other: key-value heads first, then their group."""
    first = "kv_heads" if role == "heads" else role
    return [first, "group", *(f"group.{i}" for i in range(2, count))]


def _gather(
    graph: OperatorGraph,
    axes: Axes,
    occurrences: Occurrences,
    signatures: Signatures,
    told: Told,
) -> _Facts:
    facts = _Facts()
    outer: dict[str, list[NodeAxis]] = {}
    direct = set(graph.inputs)
    returned = set(graph.output_names)
    for call in graph.calls:
        block = graph.blocks[call.block]
        for own, name in (
            *zip(block.inputs, call.inputs, strict=True),
            *zip(block.parameters, call.parameters, strict=True),
            *zip(block.outputs, call.outputs, strict=True),
        ):
            outer.setdefault(name, axes[block.name][own])
    for name, tensor in graph.inputs.items():
        for label, axis in zip(tensor.axes, outer.get(name, ()), strict=False):
            nodes = list(undivided(axis))
            if label and len(nodes) == 1:
                facts.given.setdefault(nodes[0], label)
    for name in graph.parameters:
        for axis in outer.get(name, ()):
            facts.weighted.update(dict.fromkeys(undivided(axis)))
    for name in returned:
        for axis in outer.get(name, ()):
            facts.returned.update(dict.fromkeys(undivided(axis)))
    for block in graph.blocks.values():
        inputs = {
            own
            for call in graph.calls
            if call.block == block.name
            for own, name in zip(block.inputs, call.inputs, strict=True)
            if name in direct
        }
        _look(block, inputs, occurrences[block.name], signatures[block.name], facts)
        for operator, letters_ in told[block.name].items():
            found = occurrences[block.name].get(operator, {})
            for letter, role in letters_.items():
                facts.told.update(dict.fromkeys(_nodes(found.get(letter, ())), role))
    return facts


def _look(
    block: Block,
    inputs: set[str],
    occurrences: Mapping[str, Mapping[str, list[NodeAxis | None]]],
    signatures: Mapping[str, Signature | None],
    facts: _Facts,
) -> None:
    """Gather what one block's operators do to the dimensions."""
    weights = set(block.parameters)
    raw = set(inputs)
    makers: dict[str, frozenset[str]] = {value: frozenset([value]) for value in block.inputs}
    for operator in block.operators:
        values = operator.inputs
        signature = signatures[operator.name]
        if values and all(value in weights for value in values):
            weights.update(operator.outputs)
            continue
        active = [i for i, value in enumerate(values) if value not in weights]
        merged = frozenset().union(*(makers.get(values[i], frozenset()) for i in active))
        if signature is None:
            makers.update(dict.fromkeys(operator.outputs, merged))
            continue
        found = occurrences[operator.name]
        if signature.moves and values and values[0] in raw:
            raw.update(operator.outputs)
        contracted = signature.contracted() | (signature.whole - labels_of(signature.outputs))
        multiplies = bool(contracted) and len(values) > 1 and not signature.moves
        if multiplies and len(active) < len(values):
            _weighted(block, operator, signature, active, found, raw, facts, contracted)
        if multiplies and len(active) > 1:
            _between_activations(signature, active, found, facts)
        if _is_sum(signature) and len(active) > 1:
            groups = [makers.get(values[i], frozenset()) for i in active[:2]]
            if groups[0] and groups[1] and not groups[0] & groups[1]:
                for letter in labels_of(signature.outputs):
                    facts.summed.update(dict.fromkeys(_nodes(found.get(letter, ()))))
        if multiplies:
            merged = frozenset([operator.name])
        makers.update(dict.fromkeys(operator.outputs, merged))


def _is_sum(signature: Signature) -> bool:
    """Whether inputs are added to each other; one that chooses among the others is not a sum."""
    return (
        any(len(group) > 1 and len(group) == len(signature.inputs) for group in signature.linear)
        and not signature.moves
        and not signature.contracted()
    )


def _nodes(axes: Iterable[NodeAxis | None]) -> Iterator[Node]:
    for axis in axes:
        if axis is not None:
            yield from undivided(axis)


def _weighted(
    block: Block,
    operator: Operator,
    signature: Signature,
    active: list[int],
    found: Mapping[str, list[NodeAxis | None]],
    raw: set[str],
    facts: _Facts,
    contracted: frozenset[str],
) -> None:
    """A product of an activation and a weight, or a table looked up."""
    ours = labels_of(tuple(signature.inputs[i] for i in active))
    theirs = labels_of(tuple(axes for i, axes in enumerate(signature.inputs) if i not in active))
    out = labels_of(signature.outputs)
    produced = list(_nodes(a for x in sorted((theirs & out) - ours) for a in found.get(x, ())))
    facts.produced.update(dict.fromkeys(produced))
    beside = [a for x in sorted(ours & theirs & out) for a in found.get(x, ())]
    if beside and produced:
        facts.beside.update(dict.fromkeys(_nodes(beside)))
        facts.produced_beside.update(dict.fromkeys(produced))
    for node in _nodes(a for x in sorted(contracted & ours & theirs) for a in found.get(x, ())):
        facts.contracted[node] = None
        facts.became.setdefault(node, {}).update(dict.fromkeys(produced))
    lost = sorted(contracted & (theirs - ours))
    values = [operator.inputs[i] for i in active]
    if not all("int" in block.tensors[value].dtype for value in values):
        return
    target = facts.looked_up if any(value in raw for value in values) else facts.counted
    target.update(dict.fromkeys(_nodes(a for x in lost for a in found.get(x, ()))))


def _between_activations(
    signature: Signature,
    active: list[int],
    found: Mapping[str, list[NodeAxis | None]],
    facts: _Facts,
) -> None:
    """A product of two activations: what both have and keep are heads, with what stands beside."""
    first, second = (labels_of((signature.inputs[i],)) for i in active[:2])
    ours = labels_of(tuple(signature.inputs[i] for i in active))
    kept = first & second & labels_of(signature.outputs)
    for pattern in signature.inputs[active[0]]:
        spelled = list(spell(pattern))
        if kept & set(spelled):
            chain = [
                node
                for letter in spelled
                for node in _nodes(found.get(letter, ())[:1])
                if node in facts.weighted and node not in facts.given
            ]
            if chain and chain not in facts.heads:
                facts.heads.append(chain)
    inner = ours - kept
    facts.within_heads.update(
        dict.fromkeys(
            node
            for node in _nodes(a for x in sorted(inner) for a in found.get(x, ()))
            if node in facts.weighted
        )
    )
