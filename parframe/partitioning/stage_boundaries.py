"""Boundaries between stages on different meshes: in which layout values cross them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from parframe.graph import OperatorGraph
from parframe.partitioning.actions import Action, Placement
from parframe.partitioning.block_values import Value, Values

Boundaries: TypeAlias = Mapping[int, Mapping[str, frozenset[int]]]
"""For the first call of every stage but the first: values that cross, with the cuts they keep."""


@attrs.frozen
class Boundary:
    """Conversions in the stage that ends and in the next, with the local names that cross."""

    leaving: tuple[Action, ...]
    entering: tuple[Action, ...]
    names: Mapping[str, str]


def cross_boundary(
    top: Values, graph: OperatorGraph, boundaries: Boundaries, number: int
) -> Boundary | None:
    """Convert the values that cross the boundary before a call; return None without a boundary.

    After the boundary, values have the placement in which they cross, and, where the stage uses
    them, the placement that they had: a block is placed for that one, whether or not there is a
    boundary before it. The model's inputs and parameters are given to every stage.
    """
    if number not in boundaries:
        return None
    kept = boundaries[number]
    before = len(top.actions)
    had = {value: top.layout_of(value) for value in kept}
    names = {value: top.need(value, cuts) for value, cuts in kept.items()}
    leaving = tuple(top.actions[before:])
    for value in (*graph.inputs, *graph.parameters):
        if top[value].free:
            top[value] = Value(free=True)
    used = _used(graph, boundaries, number)
    for value, cuts in kept.items():
        crossed = Placement(top.restrict(value, cuts))
        top[value] = Value(variants={crossed: names[value]})
        if value in used:
            back = top.need(value, had[value].cuts)
            top[value] = Value(variants={had[value]: back, crossed: names[value]})
    return Boundary(leaving, tuple(top.actions[before + len(leaving) :]), names)


def _used(graph: OperatorGraph, boundaries: Boundaries, number: int) -> set[str]:
    """Return the inputs of the calls of the stage that starts with a call."""
    end = min((start for start in boundaries if start > number), default=len(graph.calls))
    return {name for call in graph.calls[number:end] for name in call.inputs}
