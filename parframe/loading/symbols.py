"""Sizes of torch's symbolic shapes as parframe's: the same expressions over named symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy

from parframe.errors import ParframeError
from parframe.sizes import FloorDiv, Size, simplify, symbol

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "FloorDiv": FloorDiv,
    "CleanDiv": FloorDiv,
    "Mod": sympy.Mod,
    "PythonMod": sympy.Mod,
    "Max": sympy.Max,
    "Min": sympy.Min,
    "Add": sympy.Add,
    "Mul": sympy.Mul,
    "Pow": sympy.Pow,
}
"""torch's functions of sizes, by name, and ours."""


def size_of(value: Any, names: Mapping[str, str]) -> Size:
    """An integer or a torch.SymInt as a size.

    Parameters
    ----------
    value
        The integer.
    names
        The name of each of torch's symbols.

    Raises
    ------
    ParframeError
        If it depends on the contents of a tensor, or has another kind of arithmetic.
    """
    if isinstance(value, int):
        return value
    return translate(value.node.expr, names)


def translate(expression: Any, names: Mapping[str, str]) -> Size:
    """One of torch's symbolic expressions as a size; raises as `size_of` does."""
    return simplify(_read(expression, names))


def _read(expression: Any, names: Mapping[str, str]) -> Any:
    if expression.is_Integer:
        return sympy.Integer(int(expression))
    if expression.is_Symbol:
        if str(expression) not in names:
            raise _unreadable(expression, "depends on what is in a tensor")
        return symbol(names[str(expression)])
    function = _FUNCTIONS.get(type(expression).__name__)
    if function is None:
        raise _unreadable(expression, "is arithmetic that sizes do not have")
    return function(*(_read(part, names) for part in expression.args))


def _unreadable(expression: Any, why: str) -> ParframeError:
    return ParframeError(
        "load",
        f"size {str(expression)[:80]}",
        why,
        "rewrite that part of the model so that sizes follow from its inputs' shapes",
    )
