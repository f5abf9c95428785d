"""Schemas of registered operators, and calls with their arguments by name, as graphs store them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Arg

IGNORED = frozenset(
    {"device", "layout", "pin_memory", "memory_format", "non_blocking", "generator"}
)
"""Arguments that say where and how a tensor lies, not what is in it."""


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as graphs store it: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def find_overload(target: str) -> torch._ops.OpOverload:
    """Return the registered overload of a target such as ``aten.linear.default``."""
    namespace, _, rest = target.partition(".")
    name, _, which = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), which)
    except (AttributeError, RuntimeError):
        found = None
    if not isinstance(found, torch._ops.OpOverload):
        raise ParframeError(
            "load", target[:100], "no operator of this name is registered", "import what has it"
        )
    return found


def bind_arguments(
    target: torch._ops.OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    convert: Callable[[Any], Arg],
) -> dict[str, Arg]:
    """Return every argument by its schema's name, defaults filled in.

    Arguments of `IGNORED` and those that are None are left out.
    """
    bound: dict[str, Arg] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(args) and not argument.kwarg_only:
            value = args[position]
        elif argument.name in kwargs:
            value = kwargs[argument.name]
        else:
            value = default_value(argument)
        if argument.name in IGNORED or value is None:
            continue
        bound[argument.name] = convert(value)
    return bound


def default_value(argument: Any) -> Any:
    """Return the default of a schema's argument, None for a dtype, which is a number in schemas."""
    value = argument.default_value
    return None if is_dtype(argument) else value


def is_dtype(argument: Any) -> bool:
    """Return whether a schema's argument is a dtype."""
    return "ScalarType" in str(argument.real_type)
