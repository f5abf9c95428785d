"""One operator of a graph on tensors, and the sizes that inputs give a graph's symbols."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, OperatorGraph, Ref
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
    """Run one operator.

    Parameters
    ----------
    operator
        The operator.
    values
        Tensors by name; those the operator takes must be there.
    sizes
        Values of the symbols in its arguments.
    dtype
        If given, no floating-point result is narrower than this; so a graph runs in float64
        whatever dtypes it names.
    device
        Where operators that take no tensor put their result.

    Returns
    -------
    tuple
        What it gives, one value for each of its outputs.

    Raises
    ------
    ParframeError
        Of kind ``run`` if the target is unknown or the operator fails.
    """
    function = local_function(operator)
    try:
        if function is not None:
            args = {slot: resolve(arg, values, sizes) for slot, arg in operator.args.items()}
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


def resolve(arg: Arg, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int]) -> Any:
    """Return an argument with tensors and numbers in place of names and symbols."""
    if isinstance(arg, Ref):
        return values[arg.name]
    if isinstance(arg, tuple):
        return [resolve(part, values, sizes) for part in arg]
    if isinstance(arg, sympy.Expr):
        return evaluate(arg, sizes)
    return arg


def arguments(
    operator: Operator, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """All arguments of an operator, in one dtype if it takes one only."""
    named = {slot: resolve(arg, values, sizes) for slot, arg in operator.args.items()}
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
        value = resolve(operator.args.get(argument.name), values, sizes)
        if argument.name == "device" and not operator.inputs:
            value = torch.device(device)
        if value is None and argument.name not in operator.args and argument.has_default_value():
            continue
        if is_dtype(argument) and isinstance(value, str):
            value = widened(getattr(torch, value), dtype)
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


def widened(named: torch.dtype, least: torch.dtype | None) -> torch.dtype:
    """Return the dtype itself, or the wider of the two if both are floating point."""
    if least is None or not named.is_floating_point:
        return named
    return torch.promote_types(named, least)


def input_sizes(graph: OperatorGraph, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the values of a graph's symbols for these inputs.

    Raises
    ------
    ParframeError
        Of kind ``input`` if one is missing, is unknown, or has another shape than the graph's.
    """
    _check_named(graph.inputs, inputs)
    sizes: dict[str, int] = {}
    for name, declared in graph.inputs.items():
        actual = tuple(inputs[name].shape)
        if len(actual) != len(declared.shape):
            raise _misfit(name, actual, declared.shape)
        for size, number in zip(declared.shape, actual, strict=True):
            if isinstance(size, sympy.Symbol):
                if sizes.setdefault(size.name, number) != number:
                    raise _misfit(name, actual, declared.shape)
            elif isinstance(size, int) and size != number:
                raise _misfit(name, actual, declared.shape)
        _check_limits(declared, actual)
    for name, declared in graph.inputs.items():
        actual = tuple(inputs[name].shape)
        if tuple(evaluate(size, sizes) for size in declared.shape) != actual:
            raise _misfit(name, actual, declared.shape)
    return sizes


def with_counted(
    graph: OperatorGraph, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the inputs, with those that may be left out."""
    absent = [own for name, own in graph.inputs.items() if own.counted and name not in inputs]
    found = dict(inputs)
    if not absent:
        return found
    sizes = {
        size.name: number
        for name, tensor in inputs.items()
        if name in graph.inputs
        for size, number in zip(graph.inputs[name].shape, tensor.shape, strict=False)
        if isinstance(size, sympy.Symbol)
    }
    device = next((tensor.device for tensor in inputs.values()), None)
    for own in absent:
        try:
            shape = [evaluate(size, sizes) for size in own.shape]
        except KeyError:
            continue  # reported with the other missing inputs
        found[own.name] = counted(own, shape).to(device)
    return found


def counted(declared: Input, shape: Sequence[int]) -> torch.Tensor:
    """Return the default of an input that counts along its last dim."""
    kind: torch.dtype = getattr(torch, declared.dtype)
    return torch.arange(shape[-1], dtype=kind).expand(*shape).contiguous()


def _check_named(declared: Iterable[str], given: Mapping[str, torch.Tensor]) -> None:
    expected = set(declared)
    for name in sorted(expected.symmetric_difference(given)):
        raise ParframeError(
            "input",
            name,
            "is missing" if name in expected else "is not an input of the model",
            f"give {', '.join(sorted(expected))}",
        )


def _check_limits(declared: Input, actual: tuple[int, ...]) -> None:
    for number, limit, axis in zip(actual, declared.most, declared.axes, strict=False):
        if limit is not None and number > limit:
            raise ParframeError(
                "input",
                declared.name,
                f"has {number} along {axis or 'an axis'}, and the graph is the model for {limit} "
                "at most",
                "give fewer, or load the model with a larger limit in its configuration",
            )
    for number, limit, axis in zip(actual, declared.least, declared.axes, strict=False):
        if limit is not None and number < limit:
            raise ParframeError(
                "input",
                declared.name,
                f"has {number} along {axis or 'an axis'}, and the model's code takes another way "
                f"below {limit}",
                f"give {limit} or more",
            )


def _misfit(name: str, actual: tuple[int, ...], declared: tuple[Any, ...]) -> ParframeError:
    shape = ", ".join(str(size) for size in declared)
    return ParframeError(
        "input", name, f"has the shape {list(actual)}", f"the model takes [{shape}]"
    )
