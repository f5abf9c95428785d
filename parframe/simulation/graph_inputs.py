"""Inputs of a graph: defaults of those that may be left out, and the sizes that inputs give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Input, OperatorGraph
from parframe.plan import Program
from parframe.simulation.regions import evaluate_regions, take
from parframe.sizes import evaluate


def find_sizes(graph: OperatorGraph, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the values of a graph's symbols for these inputs.

    An error of kind ``input`` reports an input that is missing, unknown or of another shape.
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


def add_default_inputs(
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
        found[own.name] = default_input(own, shape).to(device)
    return found


def default_input(declared: Input, shape: Sequence[int]) -> torch.Tensor:
    """Return the default of an input that counts along its last dim."""
    kind: torch.dtype = getattr(torch, declared.dtype)
    return torch.arange(shape[-1], dtype=kind).expand(*shape).contiguous()


def convert_inputs(
    graph: OperatorGraph, inputs: Mapping[str, Any], dtype: torch.dtype | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Convert inputs to tensors of the model's dtypes, and add optional inputs left out.

    Floating-point inputs get ``dtype`` if it is given. An error of kind ``input`` reports a value
    that is not a tensor, or not of the kind (floating-point or integer) that the model takes.
    """
    tensors = {
        name: _convert(name, value, graph.inputs[name].dtype, dtype, device)
        if name in graph.inputs
        else value
        for name, value in inputs.items()
    }
    return add_default_inputs(graph, tensors)


def take_parts(
    program: Program,
    inputs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
) -> dict[str, torch.Tensor]:
    """Return a device's parts of whole inputs and weights, by the names of its program."""
    parts = [(part, inputs) for part in program.inputs]
    parts += [(part, state) for part in program.parameters]
    return {
        part.name: take(wholes[part.whole], evaluate_regions(part.region, sizes))
        for part, wholes in parts
    }


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


def _convert(
    name: str, value: Any, declared: str, dtype: torch.dtype | None, device: torch.device
) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParframeError("input", name, "is not a tensor", "give a torch.Tensor") from error
    expected: torch.dtype = getattr(torch, declared)
    floats = (tensor.is_floating_point(), expected.is_floating_point)
    if floats == (True, True):
        return tensor.to(dtype or expected)
    if floats == (False, False) and not tensor.is_complex():
        return tensor.to(expected)
    raise ParframeError(
        "input",
        name,
        f"has dtype {tensor.dtype}, but the model takes {declared}",
        "convert it first",
    )
