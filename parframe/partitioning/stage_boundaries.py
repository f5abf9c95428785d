"""Borders between stages on different meshes: in which layout values cross them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from parframe.graph import OperatorGraph
from parframe.partitioning.actions import Action, Layout
from parframe.partitioning.block_values import Value, Values

Borders: TypeAlias = Mapping[int, Mapping[str, frozenset[int]]]
"""For the first call of every stage but the first: values that cross, and the cuts they keep."""


@attrs.frozen
class Border:
    """What is converted at a border: on the side that is left, and on the one that is entered.

    ``names`` are those under which values cross.
    """

    leaving: tuple[Action, ...]
    entering: tuple[Action, ...]
    names: Mapping[str, str]


def cross(top: Values, graph: OperatorGraph, borders: Borders, number: int) -> Border | None:
    """Let values cross the border before a call, if there is one.

    Behind it they are known in the layout in which they cross, and, where the stage uses them, in
    the layout that they had: a block is placed for that one, whether or not a border is before it.
    What the model is given is given to every stage anew.
    """
    if number not in borders:
        return None
    kept = borders[number]
    before = len(top.actions)
    had = {value: top.layout_of(value) for value in kept}
    names = {value: top.need(value, cuts) for value, cuts in kept.items()}
    leaving = tuple(top.actions[before:])
    for value in (*graph.inputs, *graph.parameters):
        if top[value].free:
            top[value] = Value(free=True)
    used = _used(graph, borders, number)
    for value, cuts in kept.items():
        crossed = Layout(top.restrict(value, cuts))
        top[value] = Value(variants={crossed: names[value]})
        if value in used:
            back = top.need(value, had[value].cuts)
            top[value] = Value(variants={had[value]: back, crossed: names[value]})
    return Border(leaving, tuple(top.actions[before + len(leaving) :]), names)


def _used(graph: OperatorGraph, borders: Borders, number: int) -> set[str]:
    """What the calls of the stage that begins with a call take."""
    end = min((start for start in borders if start > number), default=len(graph.calls))
    return {name for call in graph.calls[number:end] for name in call.inputs}
