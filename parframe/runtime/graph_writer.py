"""Writer of an fx graph: calls, and sizes as constants or as nodes that compute them."""

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
"""A size in a graph: a constant, or a node that computes it."""


class GraphWriter:
    """Writer of an fx graph, with the values of symbols.

    Formulas of symbols are written when they are first needed.
    """

    def __init__(self, sizes: Mapping[str, Number] | None = None) -> None:
        self.graph = Graph()
        self.sizes: dict[str, Number] = dict(sizes or {})
        self.formulas: dict[str, Size] = {}
        self._numbers: dict[Any, Number] = {}

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        """Add a call of an operator or a function."""
        return self.graph.call_function(target, args, kwargs)

    def number(self, size: Size) -> Number:
        """Return a size as a constant, or as a node that computes it."""
        if isinstance(size, int):
            return size
        if size not in self._numbers:
            self._numbers[size] = self._compute(size)
        return self._numbers[size]

    def _compute(self, size: Any) -> Number:
        if size.is_Integer:
            return int(size)
        if size.is_Symbol:
            if size.name in self.formulas:
                return self.number(self.formulas[size.name])
            if size.name not in self.sizes:
                raise ParframeError(
                    "run", f"size {size.name}", "no input has this size", "pass it in `sizes`"
                )
            return self.sizes[size.name]
        parts = [self.number(part) for part in size.args]
        if isinstance(size, sympy.Pow):
            return self.arithmetic(operator.pow, *parts)
        target = next((fn for kind, fn in _ARITHMETIC.items() if isinstance(size, kind)), None)
        if target is None:
            raise ParframeError(
                "run", "size", f"{size} cannot be computed", "partition the model again"
            )
        result = parts[0]
        for part in parts[1:]:
            result = self.arithmetic(target, result, part)
        return result

    def arithmetic(self, target: Callable[..., Any], *parts: Number) -> Number:
        """Compute with sizes: at once if all are constants, otherwise in the graph."""
        if any(isinstance(part, Node) for part in parts):
            return self.call(target, *parts)
        return int(target(*parts))

    def product(self, *parts: Number) -> Number:
        """Return the product of sizes."""
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
