"""The options of a strategy: from a table of a spec to an instance of the strategy's class."""

import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.spec.value_readers import wrong
from parframe.strategy import Strategy

_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "nothing",
}


def configure(strategy: type[Strategy], options: Mapping[str, Any], where: str) -> Strategy:
    """Make a strategy whose options, the fields of its attrs class, have some values.

    Raises
    ------
    ParframeError
        Of kind `strategy`, for an unknown option or a value that does not fit; ``where`` is the
        key of the table of options.
    """
    fields = _fields(strategy)
    for name in options:
        if name not in fields:
            legal = [*fields, "axis", "code", "splits"]
            raise ParframeError(
                "strategy",
                f"{where}.{name}",
                f"{strategy.code} has no such option{did_you_mean(name, legal)}",
                f"use one of: {', '.join(legal)}",
            )
    values = {name: _fit(value, fields[name], f"{where}.{name}") for name, value in options.items()}
    try:
        return strategy(**values)
    except (TypeError, ValueError) as fault:
        raise ParframeError(
            "strategy", where, f"{strategy.code} refuses its options ({fault})", "correct them"
        ) from fault


def _fields(strategy: type[Strategy]) -> dict[str, Any]:
    """Give the type of each option by its name."""
    with suppress(NameError):  # an annotation that exists for type checkers only
        attrs.resolve_types(strategy)
    return {field.alias or field.name: field.type for field in attrs.fields(strategy) if field.init}


def _fit(value: Any, kind: Any, where: str) -> Any:
    """Turn lists into tuples and check that a value is of a type."""
    if not _fits(value, kind):
        raise ParframeError("strategy", where, wrong(value), f"give {_describe(kind)}")
    if isinstance(value, list):
        return tuple(value)
    return float(value) if kind is float else value


def _fits(value: Any, kind: Any) -> bool:
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in of)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in of)
    if origin is tuple and of[1:] == (Ellipsis,):
        return isinstance(value, list | tuple) and all(_fits(item, of[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind if kind in _PLAIN else True


def _describe(kind: Any) -> str:
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(one) for one in of if one is not types.NoneType)
    if origin is Literal:
        return "one of " + ", ".join(repr(one) for one in of)
    if origin is tuple and of[1:] == (Ellipsis,):
        return f"a list of: {_describe(of[0])}"
    return _PLAIN.get(kind, "a value that the strategy takes")
