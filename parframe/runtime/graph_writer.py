"""Writing an fx graph: calls, and sizes as numbers or as nodes that compute them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import sympy
import torch
from torch.fx import Graph, Node

from parframe.errors import ParframeError
from parframe.sizes import FloorDiv, Size

Number: TypeAlias = int | Node
"""A size in a graph: known when it is written, or computed when it runs."""


class Writer:
    """An fx graph that is being written.

    Parameters
    ----------
    sizes
        The values of symbols; in ``formulas`` are those that are computed where they are needed.
    """

    def __init__(self, sizes: Mapping[str, Number] | None = None) -> None:
        self.graph = Graph()
        self.sizes: dict[str, Number] = dict(sizes or {})
        self.formulas: dict[str, Size] = {}
        self._known: dict[Any, Number] = {}

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        """Add a call of an operator or a function."""
        return self.graph.call_function(target, args, kwargs)

    def number(self, size: Size) -> Number:
        """A size as a number, or as a node that computes it.

        Raises
        ------
        ParframeError
            Of kind ``run``, if a symbol of it has no value.
        """
        if isinstance(size, int):
            return size
        if size not in self._known:
            self._known[size] = self._computed(size)
        return self._known[size]

    def _computed(self, size: Any) -> Number:
        if size.is_Integer:
            return int(size)
        if size.is_Symbol:
            if size.name in self.formulas:
                return self.number(self.formulas[size.name])
            if size.name not in self.sizes:
                raise ParframeError(
                    "run", f"size {size.name}", "no input gives it", "give it as one of `sizes`"
                )
            return self.sizes[size.name]
        parts = [self.number(part) for part in size.args]
        if isinstance(size, sympy.Pow):
            return self.arithmetic(operator.pow, *parts)
        target = next((how for kind, how in _ARITHMETIC.items() if isinstance(size, kind)), None)
        if target is None:
            raise ParframeError(
                "run", "size", f"{size} cannot be computed", "partition the model again"
            )
        result = parts[0]
        for part in parts[1:]:
            result = self.arithmetic(target, result, part)
        return result

    def arithmetic(self, target: Callable[..., Any], *parts: Number) -> Number:
        """A computation with sizes, done at once where all are known."""
        if any(isinstance(part, Node) for part in parts):
            return self.call(target, *parts)
        return int(target(*parts))

    def product(self, *parts: Number) -> Number:
        """The product of sizes."""
        result: Number = 1
        for part in parts:
            result = part if result == 1 else self.arithmetic(operator.mul, result, part)
        return result


_ARITHMETIC: Mapping[Any, Callable[..., Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Mod: operator.mod,
    FloorDiv: operator.floordiv,
    sympy.Min: torch.sym_min,
    sympy.Max: torch.sym_max,
}
