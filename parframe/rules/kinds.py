"""Kinds of operators, by which memory is counted, kernels are priced and trial inputs drawn."""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class View:
    """An operator that gives its first input's elements another shape, order or extent.

    ``copies`` is true if the result has storage of its own. Kernels are not counted for such a copy
    either: it is part of the kernel before or after it.
    """

    copies: bool = False


@attrs.frozen
class Pointwise:
    """An operator bound by memory bandwidth, and every operator that has no other kind."""


@attrs.frozen
class Product:
    """A matrix product of two arguments, of which a weight is the right one.

    The right one is ``[columns, inner]`` if ``columns_first``, and ``[inner, columns]`` otherwise.
    """

    left: str
    right: str
    columns_first: bool = False


@attrs.frozen
class Attention:
    """Attention: ``[batch, heads, sequence, size]`` over ``[batch, kv_heads, keys, size]``.

    The fields are the names of its arguments.
    """

    query: str = "query"
    key: str = "key"
    value: str = "value"
    window: str = "window"


@attrs.frozen
class Experts:
    """A layer of experts: ``[tokens, hidden]`` through weights of ``[experts, ...]``.

    The fields are the names of its arguments, those of ``parframe.experts``.
    """

    hidden: str = "hidden"
    ids: str = "ids"
    up: str = "up"
    down: str = "down"
    gates: str = "gates"
    transposed: str = "transposed"


@attrs.frozen
class Lookup:
    """A lookup of rows in a table, a kernel of its own."""


POINTWISE = Pointwise()
"""The kind of operators that have no other."""

Kind: TypeAlias = View | Pointwise | Product | Attention | Experts | Lookup
