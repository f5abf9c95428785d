"""Constants that several parts of a model use, computed or stored once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from parframe.fold import indexed_scope
from parframe.graph import Operator, Parameter
from parframe.loading.flat_graph import FlatGraph, replace_values
from parframe.loading.random_operators import is_random


def share_computed_constants(graph: FlatGraph) -> FlatGraph:
    """Compute values without inputs (positions, for example) once for all layers that need them."""
    groups: dict[Any, list[Operator]] = {}
    for operator in graph.operators:
        if not operator.inputs and len(operator.outputs) == 1 and not is_random(operator):
            key = (operator.target, *((k, type(v).__name__, v) for k, v in operator.args.items()))
            groups.setdefault(key, []).append(operator)
    same: dict[str, str] = {}
    first: list[Operator] = []
    for group in groups.values():
        same.update((op.outputs[0], group[0].outputs[0]) for op in group[1:])
        if len({indexed_scope(operator.module) for operator in group}) > 1:
            first.append(attrs.evolve(group[0], module=_shared_path(op.module for op in group)))
    moved = same.keys() | {operator.outputs[0] for operator in first}
    rest = [operator for operator in graph.operators if operator.outputs[0] not in moved]
    return replace_values(attrs.evolve(graph, operators=(*first, *rest)), same)


def share_stored_constants(graph: FlatGraph) -> FlatGraph:
    """Store constants of equal contents once, under new names."""
    kept: dict[Any, Parameter] = {}
    same: dict[str, str] = {}
    rest: dict[str, Parameter] = {}
    for name, parameter in graph.parameters.items():
        if parameter.kind != "constant":
            rest[name] = parameter
            continue
        key = (parameter.shape, parameter.dtype, parameter.data)
        fresh = f"constant.{len(kept)}"
        same[name] = kept.setdefault(key, attrs.evolve(parameter, name=fresh)).name
    rest.update((parameter.name, parameter) for parameter in kept.values())
    return replace_values(attrs.evolve(graph, parameters=rest), same)


def _shared_path(modules: Iterable[str]) -> str:
    """Return the common prefix of module paths, up to the first layer index."""
    parts = [module.split(".") for module in modules]
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1 or names[0].isdigit():
            break
        shared.append(names[0])
    return ".".join(shared)
