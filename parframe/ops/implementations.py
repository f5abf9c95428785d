"""The functions that compute operators of programs, found by their rules."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.ops.schema import find_overload
from parframe.rules.implementation import load_function
from parframe.rules.table import DEVICE_OPERATORS, rule_of


def local_function(operator: Operator) -> Callable[..., Any] | None:
    """Return the function that computes an operator, called with its arguments by name.

    None stands for an operator that is registered with PyTorch, see `registered_operator`.
    """
    device_operator = DEVICE_OPERATORS.get(operator.target)
    if device_operator is not None:
        return load_function(device_operator.implementation)
    rule = rule_of(operator)
    if rule is None or rule.implementation is None:
        return None
    return load_function(rule.implementation)


def runtime_function(operator: Operator) -> Callable[..., Any] | None:
    """Return the function that computes an operator in the module of a rank, as above."""
    rule = None if operator.target in DEVICE_OPERATORS else rule_of(operator)
    if rule is None or rule.runtime is None:
        return local_function(operator)
    return load_function(rule.runtime)


def registered_operator(operator: Operator) -> torch._ops.OpOverload:
    """Return PyTorch's overload of an operator, which is PyTorch's own or has a rule.

    An error of kind ``run`` reports any other operator.
    """
    rule = rule_of(operator)
    if rule is None and not operator.target.startswith("aten."):
        raise ParframeError(
            "run",
            operator.name,
            f"{operator.target} may not run here",
            "use PyTorch's operators, or name the plugin that has a rule for it",
        )
    if rule is not None and rule.registered_by:
        import_module(rule.registered_by)
    return find_overload(operator.target)


def parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters, or of an overload's arguments, in order."""
    if isinstance(function, torch._ops.OpOverload):
        return tuple(argument.name for argument in function._schema.arguments)
    return tuple(signature(function).parameters)
