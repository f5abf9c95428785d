"""Sizes of torch's symbolic shapes as parframe's: the same expressions over named symbols."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import sympy

from parframe.errors import ParframeError
from parframe.sizes import FloorDiv, Size, simplify, symbol

_LONGEST_TEXT = 4_000

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


def parse(source: str, names: Mapping[str, str]) -> Size:
    """One of torch's symbolic expressions, written by sympy's ``srepr``, as a size.

    Raises
    ------
    ParframeError
        If the text is anything else; nothing in it is evaluated.
    """
    try:
        tree = ast.parse(source[:_LONGEST_TEXT], mode="eval")
        return simplify(_read_text(tree.body, source, names))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _unreadable(source, "is not a size") from error


def _read_text(node: ast.expr, source: str, names: Mapping[str, str]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            if name not in names:
                raise _unreadable(name, "depends on what is in a tensor")
            return symbol(names[name])
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return sympy.Integer(_integer(argument, source))
        case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_read_text(part, source, names) for part in args))
    raise _unreadable(source, "is arithmetic that sizes do not have")


def _integer(node: ast.expr, source: str) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
    raise _unreadable(source, "is not a size")


def _unreadable(expression: Any, why: str) -> ParframeError:
    return ParframeError(
        "load",
        f"size {str(expression)[:80]}",
        why,
        "rewrite that part of the model so that sizes follow from its inputs' shapes",
    )
