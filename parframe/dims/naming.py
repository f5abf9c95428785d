"""Naming of dimensions: a graph and rules in, the named dimensions of every tensor dim out.

One walk over the blocks joins the tensor dims that the operators' rules make the same. The factors
that remain undivided are the dimensions; their roles give them names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from parframe.dims.dimensions import BoundOperator, Dimension, Dimensions, interface
from parframe.dims.factors import (
    Node,
    NodeDim,
    divide_segments,
    flatten,
    join_dims,
    size_of,
    take_factors,
)
from parframe.dims.roles import assign_roles
from parframe.graph import Block, Operator, OperatorGraph
from parframe.layout import Leaf, Segments, TensorDim
from parframe.rules import Concat, Pattern, Rule, Signature, Site, bind
from parframe.rules.signature import spell
from parframe.rules.table import rule_for
from parframe.sizes import Size, product, sum_sizes


def name_dimensions(graph: OperatorGraph, extra_rules: Iterable[Rule] = ()) -> Dimensions:
    """Return the named dimensions of a graph; extra rules go before those of the built-in table."""
    extra = {rule.target: rule for rule in extra_rules}
    walk = _Walk(graph, extra)
    declared = {
        block: {key: dict(rule.roles) for key, (_, rule, _) in found.items() if rule is not None}
        for block, found in walk.bound.items()
    }
    names, dimensions, chains = assign_roles(
        graph, walk.tensor_dims, walk.occurrences, walk.signatures, declared
    )
    layers = len(graph.layers)
    if layers > 1:
        dimensions["layers"] = Dimension("layers", "layers", layers)
        chains["layers"] = (("layers",),)
    return Dimensions(
        dimensions=dimensions,
        chains=chains,
        tensor_dims={
            block: {
                value: tuple(_resolve(dim, names) for dim in tensor_dims)
                for value, tensor_dims in found.items()
            }
            for block, found in walk.tensor_dims.items()
        },
        bound={
            block: {
                operator: BoundOperator(
                    site,
                    rule,
                    signature,
                    _label_dims(walk.occurrences[block].get(operator, {}), signature, names),
                )
                for operator, (site, rule, signature) in found.items()
            }
            for block, found in walk.bound.items()
        },
        graph=graph,
        inconsistent_blocks=frozenset(walk.inconsistent_blocks),
    )


class _Walk:
    """Union of tensor dims by the rules of all operators."""

    def __init__(self, graph: OperatorGraph, extra: Mapping[str, Rule]) -> None:
        self.tensor_dims: dict[str, dict[str, list[NodeDim]]] = {}
        self.occurrences: dict[str, dict[str, dict[str, list[NodeDim | None]]]] = {}
        self.bound: dict[str, dict[str, tuple[Site, Rule | None, Signature | None]]] = {}
        self.signatures: dict[str, dict[str, Signature | None]] = {}
        self.inconsistent_blocks: set[str] = set()
        for block in graph.blocks.values():
            self._add_block(block, extra)
        self._join_calls(graph)
        # a second pass: factors and segments that the first pass found late may refine labels
        # that did not match before
        for block in graph.blocks.values():
            self._join_labels(block)

    def _add_block(self, block: Block, extra: Mapping[str, Rule]) -> None:
        self.tensor_dims[block.name] = {
            tensor.name: [[Node(size)] for size in tensor.shape]
            for tensor in block.tensors.values()
        }
        bound = self.bound[block.name] = {}
        for operator in block.operators:
            site = operator_site(operator, block)
            rule = rule_for(operator.target, extra)
            signature = bind(rule, site) if rule is not None else None
            bound[operator.name] = (site, rule, signature)
        self.signatures[block.name] = {key: found[2] for key, found in bound.items()}
        self._join_labels(block)

    def _join_labels(self, block: Block) -> None:
        tensor_dims = self.tensor_dims[block.name]
        self.occurrences[block.name] = {
            operator: _match_labels(site, signature, tensor_dims)
            for operator, (site, _, signature) in self.bound[block.name].items()
            if signature is not None
        }

    def _join_calls(self, graph: OperatorGraph) -> None:
        outer: dict[str, list[NodeDim]] = {}
        for call in graph.calls:
            block = graph.blocks[call.block]
            inner = self.tensor_dims[block.name]
            for own, value in interface(block, call):
                known = outer.setdefault(value, inner[own])
                for left, right in zip(known, inner[own], strict=True):
                    if not join_dims(left, right):
                        self.inconsistent_blocks.add(block.name)


def operator_site(operator: Operator, block: Block) -> Site:
    """Return an operator with its tensors."""
    return Site(
        operator,
        tuple(block.tensors[value] for value in operator.inputs),
        tuple(block.tensors[value] for value in operator.outputs),
    )


def _match_labels(
    site: Site, signature: Signature, tensor_dims: Mapping[str, list[NodeDim]]
) -> dict[str, list[NodeDim | None]]:
    """Return the factors of each label's occurrences, and join them."""
    found: dict[str, list[NodeDim | None]] = {}
    values = (*site.operator.inputs, *site.operator.outputs)
    for value, patterns in zip(values, (*signature.inputs, *signature.outputs), strict=True):
        for pattern, dim in zip(patterns, tensor_dims[value], strict=True):
            matched = _match(pattern, dim, signature.sizes)
            for label in spell(pattern):
                found.setdefault(label, []).extend([None] if matched is None else matched[label])
    for occurrences in found.values():
        present = [dim for dim in occurrences if dim is not None]
        for other in present[1:]:
            join_dims(present[0], other)
    return found


def _match(
    pattern: Pattern, dim: NodeDim, sizes: Mapping[str, Size]
) -> dict[str, list[NodeDim]] | None:
    """Return the factors of a tensor dim that each label of its pattern stands for."""
    result: dict[str, list[NodeDim]] = {}
    rest: NodeDim = list(dim)
    for atom in pattern:
        if len(pattern) == 1:
            taken, rest = list(dim), []
        else:
            halves = take_factors(rest, _atom_size(atom, sizes))
            if halves is None:
                return None
            taken, rest = halves
        if isinstance(atom, str):
            result.setdefault(atom, []).append(taken)
            continue
        parts = divide_segments(taken, [_pattern_size(part, sizes) for part in atom.parts])
        if parts is None:
            return None
        for part, nodes in zip(atom.parts, parts, strict=True):
            inner = _match(part, nodes, sizes)
            if inner is None:
                return None
            for label, places in inner.items():
                result.setdefault(label, []).extend(places)
    return result


def _pattern_size(pattern: Pattern, sizes: Mapping[str, Size]) -> Size:
    return product(_atom_size(atom, sizes) for atom in pattern)


def _atom_size(atom: str | Concat, sizes: Mapping[str, Size]) -> Size:
    if isinstance(atom, str):
        return sizes[atom]
    return sum_sizes(_pattern_size(part, sizes) for part in atom.parts)


def _resolve(dim: NodeDim, names: Mapping[Node, str]) -> TensorDim:
    return tuple(
        Leaf(names[node], node.size)
        if node.segments is None
        else Segments(tuple(_resolve(part, names) for part in _flat_segments(node.segments)))
        for node in flatten(dim)
    )


def _flat_segments(parts: list[NodeDim]) -> Iterator[NodeDim]:
    """Yield the parts of segments, with nested segments flattened."""
    for part in parts:
        flat = flatten(part)
        if size_of(flat) == 0:
            continue
        if flat and flat[0].segments is not None:
            for inner in _flat_segments(flat[0].segments):
                yield [*inner, *flat[1:]]
        else:
            yield flat


def _label_dims(
    occurrences: Mapping[str, list[NodeDim | None]],
    signature: Signature | None,
    names: Mapping[Node, str],
) -> dict[str, TensorDim | None]:
    if signature is None:
        return {}
    result: dict[str, TensorDim | None] = {}
    for label, places in occurrences.items():
        found = {None if dim is None else _resolve(dim, names) for dim in places}
        result[label] = found.pop() if len(found) == 1 else None
    return result
