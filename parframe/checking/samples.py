"""Symbolic sizes evaluated at sample values of the model's symbols.

Two sizes that agree at all samples are taken to be the same. The samples are chosen such that
uneven shards, empty shards and large values all occur.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import sympy

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.sizes import FloorDiv, Size, simplify

SampledSize: TypeAlias = tuple[int, ...]
"""Size at each of the samples."""

Bindings: TypeAlias = Mapping[str, SampledSize]
"""Value of every symbol that a device knows, at each of the samples."""

_SAMPLES = ((5, 7, 11, 13), (97, 101, 103, 107), (840, 1680, 2520, 5040))
"""Values of the symbols, in turn, for each sample."""


def sample_symbols(names: Iterable[str]) -> dict[str, SampledSize]:
    """Return sample values for the model's symbols."""
    return {
        name: tuple(values[i % len(values)] + i // len(values) for values in _SAMPLES)
        for i, name in enumerate(sorted(names))
    }


SAMPLE_COUNT = len(_SAMPLES)
"""Number of samples."""


def sample_size(size: Size, bindings: Bindings) -> SampledSize:
    """Return a size at every sample.

    Raise ``KeyError`` if a symbol of the size is not bound.
    """
    if isinstance(size, int):
        return (size,) * SAMPLE_COUNT
    names = symbol_names(size)
    return _sample_size(size, tuple((name, bindings[name]) for name in names))


@lru_cache(maxsize=100_000)
def symbol_names(size: Any) -> tuple[str, ...]:
    """Return the symbols of a size, sorted."""
    if isinstance(size, int):
        return ()
    return tuple(sorted(part.name for part in size.free_symbols))


@lru_cache(maxsize=200_000)
def _sample_size(size: Any, values: tuple[tuple[str, SampledSize], ...]) -> SampledSize:
    return tuple(
        evaluate_size(size, {name: value[sample] for name, value in values})
        for sample in range(SAMPLE_COUNT)
    )


def evaluate_size(size: Any, values: Mapping[str, int]) -> int:
    """Return the number that a size is at these values of its symbols.

    Raises
    ------
    KeyError
        If a symbol has no value.
    ParframeError
        If the size has other operators than sums, products, ``//``, ``%``, Min and Max.
    """
    if isinstance(size, int):
        return size
    if isinstance(size, sympy.Symbol):
        return values[size.name]
    if isinstance(size, sympy.Integer):
        return int(size)
    parts = [evaluate_size(part, values) for part in size.args]
    if isinstance(size, sympy.Add):
        return sum(parts)
    if isinstance(size, sympy.Mul):
        return math.prod(parts)
    if isinstance(size, sympy.Pow) and parts[1] >= 0:
        return int(parts[0] ** parts[1])
    if isinstance(size, FloorDiv | sympy.Mod) and parts[1] != 0:
        return parts[0] // parts[1] if isinstance(size, FloorDiv) else parts[0] % parts[1]
    if isinstance(size, sympy.Min | sympy.Max):
        return min(parts) if isinstance(size, sympy.Min) else max(parts)
    raise ParframeError("plan", str(size)[:60], "not a size", "partition the model again")


def same_size(left: Size, right: Size) -> bool:
    """Return whether two sizes are the same expression."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return bool(left == right) or simplify(sympy.expand(left - right)) == 0


def graph_symbols(graph: OperatorGraph) -> frozenset[str]:
    """Return the names of all symbols in a graph's tensors."""
    found: set[str] = set()
    for tensors in (graph.inputs, graph.parameters, *(b.tensors for b in graph.blocks.values())):
        for tensor in tensors.values():
            for size in tensor.shape:
                found.update(symbol_names(size))
    return frozenset(found)
