"""Naming: graph and rules in, the named dimensions of every tensor axis out.

One walk over the blocks joins the axes that the operators' rules make the same; what remains
undivided are the dimensions, and roles give them their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs

from parframe.dims.factors import (
    Node,
    NodeAxis,
    find,
    flatten,
    join,
    segment,
    size_of,
    take,
)
from parframe.dims.roles import assign_roles
from parframe.graph import Block, Operator, OperatorGraph
from parframe.layout import Axis, Leaf, Segments, dims_of, leaves
from parframe.rules import Concat, Pattern, Rule, Signature, Site, bind
from parframe.rules.signature import spell
from parframe.rules.table import rule_for
from parframe.sizes import Size


@attrs.frozen
class Dimension:
    """A named dimension: its name, the role it plays (may be empty), and its size."""

    name: str
    role: str
    size: Size


@attrs.frozen
class Bound:
    """One operator with its rule bound.

    ``letters`` has the structure of every letter in dimensions; None where its occurrences could
    not be given one structure, so that it has to stay whole. ``signature`` is None where no rule
    covers the operator.
    """

    site: Site
    rule: Rule | None
    signature: Signature | None
    letters: Mapping[str, Axis | None]

    @cached_property
    def splitting(self) -> dict[Any, Any]:
        """What has been found of how the operator can be split, for whoever asks again."""
        return {}


@attrs.frozen
class Dimensions:
    """The names of a graph.

    Parameters
    ----------
    dimensions
        Every dimension by name.
    chains
        For every role, its dimensions: each entry is one dimension, or several that are split one
        after the other (``kv_heads``, then ``group``).
    axes
        For every block and value, the axes in dimensions.
    bound
        For every block and operator, its rule and letters.
    torn
        The blocks whose calls cannot have one naming: an axis is made of other factors in one.
    halves
        The chains that are the two halves of one dimension; see ``parframe.dims.halves``.
    """

    dimensions: Mapping[str, Dimension]
    chains: Mapping[str, tuple[tuple[str, ...], ...]]
    axes: Mapping[str, Mapping[str, tuple[Axis, ...]]]
    bound: Mapping[str, Mapping[str, Bound]]
    graph: OperatorGraph = attrs.field(repr=False, eq=False)
    torn: frozenset[str] = frozenset()
    halves: frozenset[tuple[str, ...]] = frozenset()

    @cached_property
    def outer(self) -> dict[str, tuple[Axis, ...]]:
        """The axes of the graph's inputs, parameters and the values between calls."""
        found: dict[str, tuple[Axis, ...]] = {}
        for call in self.graph.calls:
            block = self.graph.blocks[call.block]
            axes = self.axes[block.name]
            for own, name in _interface(block, call.inputs, call.parameters, call.outputs):
                found.setdefault(name, axes[own])
        for name, tensor in {**self.graph.inputs, **self.graph.parameters}.items():
            found.setdefault(
                name, tuple((Leaf(f"{name}.{i}", size),) for i, size in enumerate(tensor.shape))
            )
        return found

    @cached_property
    def given(self) -> frozenset[str]:
        """The dimensions of the model's inputs: an output may stay split along these."""
        return frozenset(
            leaf.dim
            for name in self.graph.inputs
            for axis in self.outer[name]
            for leaf in leaves(axis)
        )

    def targets(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The chains that a role or a dimension's name stands for; empty if there is none."""
        if name in self.chains:
            return self.chains[name]
        return ((name,),) if name in self.dimensions else ()


def _interface(
    block: Block, inputs: tuple[str, ...], parameters: tuple[str, ...], outputs: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    yield from zip(block.inputs, inputs, strict=True)
    yield from zip(block.parameters, parameters, strict=True)
    yield from zip(block.outputs, outputs, strict=True)


def name(graph: OperatorGraph, extra_rules: Iterable[Rule] = ()) -> Dimensions:
    """Find and name the dimensions of a graph.

    Parameters
    ----------
    graph
        The model.
    extra_rules
        Rules beside the built-in table; they come first.

    Returns
    -------
    Dimensions
    """
    extra = {rule.target: rule for rule in extra_rules}
    walk = _Walk(graph, extra)
    told = {
        block: {key: dict(rule.roles) for key, (_, rule, _) in found.items() if rule is not None}
        for block, found in walk.bound.items()
    }
    names, dimensions, chains = assign_roles(
        graph, walk.axes, walk.occurrences, walk.signatures, told
    )
    layers = len(graph.layers)
    if layers > 1:
        dimensions["layers"] = Dimension("layers", "layers", layers)
        chains["layers"] = (("layers",),)
    return Dimensions(
        dimensions={
            key: Dimension(*value) if isinstance(value, tuple) else value
            for key, value in dimensions.items()
        },
        chains=chains,
        axes={
            block: {
                value: tuple(_resolve(axis, names) for axis in axes)
                for value, axes in found.items()
            }
            for block, found in walk.axes.items()
        },
        bound={
            block: {
                operator: Bound(
                    site,
                    rule,
                    signature,
                    _letters(walk.occurrences[block].get(operator, {}), signature, names),
                )
                for operator, (site, rule, signature) in found.items()
            }
            for block, found in walk.bound.items()
        },
        graph=graph,
        torn=frozenset(walk.torn),
    )


class _Walk:
    """The union of all axes by all operators' rules."""

    def __init__(self, graph: OperatorGraph, extra: Mapping[str, Rule]) -> None:
        self.axes: dict[str, dict[str, list[NodeAxis]]] = {}
        self.occurrences: dict[str, dict[str, dict[str, list[NodeAxis | None]]]] = {}
        self.bound: dict[str, dict[str, tuple[Site, Rule | None, Signature | None]]] = {}
        self.signatures: dict[str, dict[str, Signature | None]] = {}
        self.torn: set[str] = set()
        for block in graph.blocks.values():
            self._enter(block, extra)
        self._connect(graph)
        # a second pass: what the first learned late (a factor, a segment) may now refine letters
        # that could not be placed when they were met
        for block in graph.blocks.values():
            self._join_all(block)

    def _enter(self, block: Block, extra: Mapping[str, Rule]) -> None:
        self.axes[block.name] = {
            tensor.name: [[Node(size)] for size in tensor.shape]
            for tensor in block.tensors.values()
        }
        bound = self.bound[block.name] = {}
        for operator in block.operators:
            site = site_of(operator, block)
            rule = rule_for(operator.target, extra)
            signature = bind(rule, site) if rule is not None else None
            bound[operator.name] = (site, rule, signature)
        self.signatures[block.name] = {key: found[2] for key, found in bound.items()}
        self._join_all(block)

    def _join_all(self, block: Block) -> None:
        axes = self.axes[block.name]
        self.occurrences[block.name] = {
            operator: _place(site, signature, axes)
            for operator, (site, _, signature) in self.bound[block.name].items()
            if signature is not None
        }

    def _connect(self, graph: OperatorGraph) -> None:
        outer: dict[str, list[NodeAxis]] = {}
        for call in graph.calls:
            block = graph.blocks[call.block]
            inner = self.axes[block.name]
            for own, value in _interface(block, call.inputs, call.parameters, call.outputs):
                known = outer.setdefault(value, inner[own])
                for left, right in zip(known, inner[own], strict=True):
                    if not join(left, right):
                        self.torn.add(block.name)


def site_of(operator: Operator, block: Block) -> Site:
    """The operator with its tensors."""
    return Site(
        operator,
        tuple(block.tensors[value] for value in operator.inputs),
        tuple(block.tensors[value] for value in operator.outputs),
    )


def _place(
    site: Site, signature: Signature, axes: Mapping[str, list[NodeAxis]]
) -> dict[str, list[NodeAxis | None]]:
    """Find each letter in the axes where it occurs, and join its occurrences."""
    found: dict[str, list[NodeAxis | None]] = {}
    values = (*site.operator.inputs, *site.operator.outputs)
    for value, patterns in zip(values, (*signature.inputs, *signature.outputs), strict=True):
        for pattern, axis in zip(patterns, axes[value], strict=True):
            placed = _match(pattern, axis, signature.sizes)
            for letter in spell(pattern):
                found.setdefault(letter, []).extend([None] if placed is None else placed[letter])
    for occurrences in found.values():
        present = [axis for axis in occurrences if axis is not None]
        for other in present[1:]:
            join(present[0], other)
    return found


def _match(
    pattern: Pattern, axis: NodeAxis, sizes: Mapping[str, Size]
) -> dict[str, list[NodeAxis]] | None:
    """The factors of an axis that each letter of its pattern stands for, wherever it stands."""
    result: dict[str, list[NodeAxis]] = {}
    rest: NodeAxis = list(axis)
    for atom in pattern:
        size = sizes[atom] if isinstance(atom, str) else _concat_size(atom, sizes)
        if len(pattern) == 1:
            taken, rest = list(axis), []
        else:
            halves = take(rest, size)
            if halves is None:
                return None
            taken, rest = halves
        if isinstance(atom, str):
            result.setdefault(atom, []).append(taken)
            continue
        parts = segment(taken, [_pattern_size(part, sizes) for part in atom.parts])
        if parts is None:
            return None
        for part, nodes in zip(atom.parts, parts, strict=True):
            inner = _match(part, nodes, sizes)
            if inner is None:
                return None
            for letter, places in inner.items():
                result.setdefault(letter, []).extend(places)
    return result


def _pattern_size(pattern: Pattern, sizes: Mapping[str, Size]) -> Size:
    result: Size = 1
    for atom in pattern:
        result = result * (sizes[atom] if isinstance(atom, str) else _concat_size(atom, sizes))
    return result


def _concat_size(atom: Concat, sizes: Mapping[str, Size]) -> Size:
    result: Size = 0
    for part in atom.parts:
        result = result + _pattern_size(part, sizes)
    return result


def _resolve(axis: NodeAxis, names: Mapping[Node, str]) -> Axis:
    return tuple(
        Leaf(names[node], node.size)
        if node.segments is None
        else Segments(tuple(_resolve(part, names) for part in _merged(node.segments)))
        for node in flatten(axis)
    )


def _merged(parts: list[NodeAxis]) -> Iterator[NodeAxis]:
    """The parts of segments, segmented parts written out, so that equal axes look equal."""
    for part in parts:
        flat = flatten(part)
        if size_of(flat) == 0:
            continue
        if flat and flat[0].segments is not None:
            for inner in _merged(flat[0].segments):
                yield [*inner, *flat[1:]]
        else:
            yield flat


def _letters(
    occurrences: Mapping[str, list[NodeAxis | None]],
    signature: Signature | None,
    names: Mapping[Node, str],
) -> dict[str, Axis | None]:
    if signature is None:
        return {}
    result: dict[str, Axis | None] = {}
    for letter, places in occurrences.items():
        found = {None if axis is None else _resolve(axis, names) for axis in places}
        result[letter] = found.pop() if len(found) == 1 else None
    return result


__all__ = ["Bound", "Dimension", "Dimensions", "dims_of", "find", "name", "site_of"]
