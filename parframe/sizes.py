"""Sizes of tensor dims: plain integers, or integer expressions over named positive symbols.

An integer size is a Python ``int``; anything else is a sympy expression. Text is written and read
with a small grammar of its own, because sympy's parser evaluates Python and must not get untrusted
text.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, TypeAlias

import sympy
from sympy.printing.str import StrPrinter

from parframe.errors import ParframeError

Size: TypeAlias = int | sympy.Expr

_LONGEST_TEXT = 2_000
_DEEPEST = 50


class FloorDiv(sympy.Function):  # type: ignore[misc]  # sympy is not typed
    """Integer division that rounds down, unevaluated until both sides are numbers."""

    nargs = (2,)
    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, numerator: Any, denominator: Any) -> Any:
        """Return the quotient where it is known; None leaves the division as it is."""
        if denominator == 1:
            return numerator
        if numerator.is_Integer and denominator.is_Integer:
            return sympy.Integer(int(numerator) // int(denominator))
        ratio = sympy.cancel(numerator / denominator)
        if ratio.is_integer and sympy.denom(ratio) == 1:
            return ratio
        return None


class _Printer(StrPrinter):  # type: ignore[misc]
    def _print_FloorDiv(self, expr: Any) -> str:  # noqa: N802  # sympy looks it up by class
        return self._division(expr, "//")

    def _print_Mod(self, expr: Any) -> str:  # noqa: N802
        return self._division(expr, "%")

    def _division(self, expr: Any, sign: str) -> str:
        texts = (self._print(part) for part in expr.args)
        closed = (
            text if part.is_Symbol or text.isdecimal() else f"({text})"
            for part, text in zip(expr.args, texts, strict=True)
        )
        return f"({sign.join(closed)})"


@cache
def symbol(name: str) -> sympy.Symbol:
    """Return the positive integer symbol of this name."""
    return sympy.Symbol(name, integer=True, positive=True)


@cache
def offset(name: str) -> sympy.Symbol:
    """Return a symbol that may be zero: the start or the size of a part of a dimension.

    Their names end in ``_start`` and ``_here``.
    """
    return sympy.Symbol(name, integer=True, nonnegative=True)


def simplify(value: Any) -> Size:
    """Return an ``int`` where the expression is a number, otherwise the expression itself."""
    if isinstance(value, int):
        return value
    return int(value) if value.is_Integer else value


def product(sizes: Any) -> Size:
    """Return the product of sizes; 1 for no sizes."""
    sum_sizes: Any = 1
    for size in sizes:
        sum_sizes = sum_sizes * size
    return simplify(sum_sizes)


def sum_sizes(sizes: Any) -> Size:
    """Return the sum of sizes; 0 for no sizes."""
    result: Any = 0
    for size in sizes:
        result = result + size
    return simplify(result)


@lru_cache(maxsize=100_000)
def divide(numerator: Size, denominator: Size) -> Size | None:
    """Return the exact quotient, or None where it is not certainly a whole number."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        if denominator == 0:
            return None
        quotient, rest = divmod(numerator, denominator)
        return quotient if rest == 0 else None
    if numerator == denominator:
        return 1
    ratio = sympy.cancel(sympy.sympify(numerator) / denominator)
    if sympy.denom(ratio) != 1 or not ratio.is_integer:
        return None
    return simplify(ratio)


def floordiv(numerator: Size, denominator: Size) -> Size:
    """Return the quotient, rounded down."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    return simplify(FloorDiv(sympy.sympify(numerator), sympy.sympify(denominator)))


def minimum(left: Size, right: Size) -> Size:
    """Return the smaller of two sizes."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    return simplify(sympy.Min(left, right))


@lru_cache(maxsize=200_000)
def _evaluate(size: Any, values: tuple[tuple[str, int], ...]) -> int:
    result = size.subs({part: dict(values)[part.name] for part in size.free_symbols})
    return int(result)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """Return the number that a size is for these values of its symbols.

    Raises
    ------
    KeyError
        If a symbol of the size has no value.
    """
    if isinstance(size, int):
        return size
    names = sorted(part.name for part in size.free_symbols)
    return _evaluate(size, tuple((name, values[name]) for name in names))


def simplify_bounds(size: Size, most: Mapping[str, int]) -> Size:
    """Return the size without the operands of its ``Max`` and ``Min`` that never decide the result.

    Parameters
    ----------
    size
        The size.
    most
        The largest values of symbols that have a limit.
    """
    if isinstance(size, int) or not size.has(sympy.Max, sympy.Min):
        return size
    parts = [simplify_bounds(part, most) for part in size.args]
    if not isinstance(size, sympy.Max | sympy.Min):
        return simplify(size.func(*parts))
    sign = 1 if isinstance(size, sympy.Max) else -1
    left: list[Size] = []
    for number, part in enumerate(parts):
        rivals = (*left, *parts[number + 1 :])
        if not any(_least(sympy.expand(sign * (other - part)), most) >= 0 for other in rivals):
            left.append(part)
    return simplify(size.func(*left))


def _least(size: Any, most: Mapping[str, int]) -> Any:
    """Return a lower bound of a sum of positive symbols; minus infinity where none is known."""
    sum_sizes: Any = 0
    for term in sympy.Add.make_args(size):
        factor, rest = term.as_coeff_Mul()
        if rest == 1 or (rest.is_Symbol and rest.is_positive and factor > 0):
            sum_sizes += factor
        elif rest.is_Symbol and factor < 0 and rest.name in most:
            sum_sizes += factor * most[rest.name]
        else:
            return -sympy.oo
    return sum_sizes


def symbols_of(size: Size) -> frozenset[str]:
    """Return the names of the symbols in a size."""
    if isinstance(size, int):
        return frozenset()
    return frozenset(part.name for part in size.free_symbols)


def substitute(size: Size, replacements: Mapping[str, Size]) -> Size:
    """Return the size with symbols replaced by other sizes."""
    if isinstance(size, int):
        return size
    return simplify(
        size.subs(
            {
                part: replacements[part.name]
                for part in size.free_symbols
                if part.name in replacements
            }
        )
    )


@lru_cache(maxsize=50_000)
def format_size(size: Size) -> str:
    """Return the size as text that ``parse_size`` reads back."""
    return str(size) if isinstance(size, int) else str(_Printer().doprint(size))


@lru_cache(maxsize=50_000)
def parse_size(source: str) -> Size:
    """Read a size from text: integers, names, ``+ - * // %``, ``Max(...)``, ``Min(...)``.

    Raises
    ------
    ParframeError
        If the text is anything else.
    """
    if len(source) > _LONGEST_TEXT:
        raise _bad(source)
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(source) from error
    try:
        found = simplify(_read(tree.body, source, _DEEPEST))
    except (ZeroDivisionError, OverflowError, TypeError, ValueError) as error:
        raise _bad(source) from error
    if isinstance(found, sympy.Expr) and found.has(sympy.nan, sympy.zoo, sympy.oo):
        raise _bad(source)
    return found


_BINARY: dict[type[ast.operator], Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: FloorDiv,
    ast.Mod: sympy.Mod,
}


def _read(node: ast.expr, source: str, depth: int) -> Any:
    if depth == 0:
        raise _bad(source)
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return sympy.Integer(number)
        case ast.Name(id=name):
            return offset(name) if name.endswith(("_start", "_here")) else symbol(name)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if (
            0 < power < 10
        ):
            return _read(left, source, depth - 1) ** power
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](
                _read(left, source, depth - 1), _read(right, source, depth - 1)
            )
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_read(operand, source, depth - 1)
        case ast.Call(func=ast.Name(id="Max" | "Min" as which), args=args, keywords=[]) if args:
            parts = [_read(arg, source, depth - 1) for arg in args]
            return sympy.Max(*parts) if which == "Max" else sympy.Min(*parts)
    raise _bad(source)


def _bad(source: str) -> ParframeError:
    return ParframeError(
        "graph",
        repr(source[:60]),
        "not a size",
        "write an integer, a name, or a sum, product, // or % of them",
    )
