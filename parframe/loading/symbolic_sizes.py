"""Symbolic sizes of PyTorch, converted to expressions over parframe's named symbols."""

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
"""Functions of sizes, by the names that PyTorch gives them."""


def size_of(value: Any, names: Mapping[str, str]) -> Size:
    """Convert an integer or a torch.SymInt to a size, given the names of PyTorch's symbols.

    Raises
    ------
    ParframeError
        If it depends on the contents of a tensor, or uses a function that sizes do not support.
    """
    if isinstance(value, int):
        return value
    return simplify(_read(value.node.expr, names))


def _read(expression: Any, names: Mapping[str, str]) -> Any:
    if expression.is_Integer:
        return sympy.Integer(int(expression))
    if expression.is_Symbol:
        if str(expression) not in names:
            raise _unreadable(expression, "depends on the contents of a tensor")
        return symbol(names[str(expression)])
    function = _FUNCTIONS.get(type(expression).__name__)
    if function is None:
        raise _unreadable(expression, "uses a function that sizes do not support")
    return function(*(_read(part, names) for part in expression.args))


def parse(source: str, names: Mapping[str, str]) -> Size:
    """Parse a symbolic expression of PyTorch, written by sympy's ``srepr``.

    Raises
    ------
    ParframeError
        If the text is not such an expression; no code in it is evaluated.
    """
    try:
        tree = ast.parse(source[:_LONGEST_TEXT], mode="eval")
        return simplify(_read_text(tree.body, source, names))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _unreadable(source, "is not an expression of sizes") from error


def _read_text(node: ast.expr, source: str, names: Mapping[str, str]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            if name not in names:
                raise _unreadable(name, "depends on the contents of a tensor")
            return symbol(names[name])
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return sympy.Integer(_integer(argument, source))
        case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_read_text(part, source, names) for part in args))
    raise _unreadable(source, "uses a function that sizes do not support")


def _integer(node: ast.expr, source: str) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
    raise _unreadable(source, "is not an expression of sizes")


def _unreadable(expression: Any, why: str) -> ParframeError:
    return ParframeError(
        "load",
        f"size {str(expression)[:80]}",
        why,
        "rewrite that part of the model so that sizes depend only on the shapes of its inputs",
    )
