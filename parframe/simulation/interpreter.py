"""Execution of one operator on tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Arg, Operator, Ref
from parframe.ops.implementations import local_function, registered_operator
from parframe.ops.schema import is_dtype
from parframe.rules.table import rule_of
from parframe.sizes import evaluate


def execute(
    operator: Operator,
    values: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Any, ...]:
    """Run one operator on named tensors, and return one value for each of its outputs.

    If ``dtype`` is given, no floating-point result is narrower, so that a graph runs in float64
    whatever dtypes it names. ``device`` is that of results of operators that take no tensor. An
    error of kind ``run`` reports an unknown target or an operator that fails.
    """
    function = local_function(operator)
    try:
        if function is not None:
            args = {
                slot: resolve_argument(arg, values, sizes) for slot, arg in operator.args.items()
            }
            result = function(**args)
        else:
            result = _call(operator, values, sizes, dtype, device)
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        reason = next(iter(str(error).splitlines()), "no reason")
        raise ParframeError(
            "run",
            f"{operator.name} ({operator.module or 'the model'})",
            f"{operator.target} failed: {reason}",
            "check the inputs' shapes and dtypes",
        ) from error
    if len(operator.outputs) == 1 and isinstance(result, torch.Tensor):
        return (result,)
    return tuple(result)


def resolve_argument(arg: Arg, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int]) -> Any:
    """Return an argument with tensors and numbers in place of names and symbols."""
    if isinstance(arg, Ref):
        return values[arg.name]
    if isinstance(arg, tuple):
        return [resolve_argument(part, values, sizes) for part in arg]
    if isinstance(arg, sympy.Expr):
        return evaluate(arg, sizes)
    return arg


def resolve_arguments(
    operator: Operator, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Return all arguments of an operator, in one dtype if it takes one only."""
    named = {slot: resolve_argument(arg, values, sizes) for slot, arg in operator.args.items()}
    return _of_one_dtype(named) if _needs_one_dtype(operator) else named


def _call(
    operator: Operator,
    values: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> Any:
    """Run a PyTorch operator, its arguments in the forms its schema asks for."""
    target = registered_operator(operator)
    named: dict[str, Any] = {}
    for argument in target._schema.arguments:
        value = resolve_argument(operator.args.get(argument.name), values, sizes)
        if argument.name == "device" and not operator.inputs:
            value = torch.device(device)
        if value is None and argument.name not in operator.args and argument.has_default_value():
            continue
        if is_dtype(argument) and isinstance(value, str):
            value = widen_dtype(getattr(torch, value), dtype)
        named[argument.name] = value
    if _needs_one_dtype(operator):
        named = _of_one_dtype(named)
    return target(**named)


def _needs_one_dtype(operator: Operator) -> bool:
    rule = rule_of(operator)
    return rule is not None and rule.one_dtype


def _of_one_dtype(named: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with all floating-point tensors in the widest of their dtypes.

    They differ where a float32 model whose code casts to float32 is run with wider weights.
    """
    floats = [v for v in named.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
    if len({tensor.dtype for tensor in floats}) < 2:
        return named
    widest = functools.reduce(torch.promote_types, (tensor.dtype for tensor in floats))
    known = set(map(id, floats))
    return {slot: v.to(widest) if id(v) in known else v for slot, v in named.items()}


def widen_dtype(named: torch.dtype, least: torch.dtype | None) -> torch.dtype:
    """Return the dtype itself, or the wider of the two if both are floating point."""
    if least is None or not named.is_floating_point:
        return named
    return torch.promote_types(named, least)
