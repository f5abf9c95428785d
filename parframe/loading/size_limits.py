"""The sizes of inputs that a program is the model for, and the program written for those alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import sympy
import torch

from parframe.graph import Arg, Input
from parframe.loading.flat_graph import Program
from parframe.sizes import Size, within

_LARGEST = 2**20
"""Sizes are not tried beyond this."""

_BESIDE = 2
"""How far beyond its limit a model must fail: torch.export leaves out the whole of a table."""


@attrs.frozen
class Limits:
    """The smallest and the largest sizes of axes, by their names, where there are any."""

    least: Mapping[str, int] = attrs.field(factory=dict)
    most: Mapping[str, int] = attrs.field(factory=dict)


def own_limit(
    module: torch.nn.Module,
    resized: Callable[[int], Mapping[str, Any]],
    holds: Callable[[Mapping[str, Any]], bool],
    known: int,
) -> int | None:
    """The largest size of an axis at which an export holds, if the model itself has no larger.

    Parameters
    ----------
    module
        The model.
    resized
        Example inputs whose axis has this size.
    holds
        Whether the export holds for inputs.
    known
        A size at which it does.

    Returns
    -------
    The size; None if it has no limit, or the model goes on beyond it.
    """
    high = known
    while holds(resized(high)):
        known, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - known > 1:
        middle = (known + high) // 2
        known, high = (middle, high) if holds(resized(middle)) else (known, middle)
    ends = runs(module, resized(known)) and not runs(module, resized(known + _BESIDE))
    return known if ends else None


def runs(module: torch.nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Whether a model takes inputs."""
    try:
        with torch.no_grad():
            module(**inputs)
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


def limited(program: Program, limits: Limits) -> Program:
    """The program for sizes within these limits."""
    if not limits.least and not limits.most:
        return program
    most: dict[str, int] = {}
    inputs = {name: _limited_input(tensor, limits, most) for name, tensor in program.inputs.items()}

    def plain(arg: Arg) -> Arg:
        if isinstance(arg, tuple):
            return tuple(plain(part) for part in arg)
        return within(arg, most) if isinstance(arg, sympy.Expr) else arg

    return attrs.evolve(
        program,
        remarks=(*program.remarks, *_told(limits)),
        inputs=inputs,
        operators=tuple(
            attrs.evolve(op, args={slot: plain(arg) for slot, arg in op.args.items()})
            for op in program.operators
        ),
        tensors={
            name: attrs.evolve(tensor, shape=_shape(tensor.shape, most))
            for name, tensor in program.tensors.items()
        },
    )


def _told(limits: Limits) -> Iterator[str]:
    """The limits in words."""
    for name, size in limits.least.items():
        yield f"the graph is the model where {name} is {size} or more"
    for name, size in limits.most.items():
        yield f"the graph is the model where {name} is {size} at most"


def _limited_input(tensor: Input, limits: Limits, most: dict[str, int]) -> Input:
    """The input with its limits; the largest sizes of its symbols are noted."""
    for size, axis in zip(tensor.shape, tensor.axes, strict=False):
        if axis in limits.most and isinstance(size, sympy.Symbol):
            most[size.name] = limits.most[axis]
    return attrs.evolve(tensor, least=_each(tensor, limits.least), most=_each(tensor, limits.most))


def _each(tensor: Input, limits: Mapping[str, int]) -> tuple[int | None, ...]:
    """The limit of each axis of an input; nothing where none has one."""
    own = tuple(limits.get(axis) for axis in tensor.axes)
    return own if any(limit is not None for limit in own) else ()


def _shape(shape: Sequence[Size], most: Mapping[str, int]) -> tuple[Size, ...]:
    return tuple(within(size, most) for size in shape)
