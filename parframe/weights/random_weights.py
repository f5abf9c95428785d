"""Random weights: each parameter has the same numbers on every rank and in the whole model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from parframe.graph import OperatorGraph, Parameter
from parframe.plan import Slices
from parframe.weights.target_dtypes import target_dtype


@attrs.frozen
class RandomWeights:
    """Random weights; each parameter depends on the seed and on its own name alone."""

    seed: int = 0


def is_random(weights: Any) -> bool:
    """Return whether weights are random: `RandomWeights`, or ``"random"``."""
    return isinstance(weights, RandomWeights) or (isinstance(weights, str) and weights == "random")


def random_parameter(parameter: Parameter, seed: int, positive: bool = False) -> torch.Tensor:
    """Return random numbers for a parameter, which depend on its name and the seed alone.

    Matrices keep the scale of activations; vectors are around 1, of both signs.
    """
    digest = hashlib.sha256(f"{seed}:{parameter.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    shape = [int(size) for size in parameter.shape]
    dtype = getattr(torch, parameter.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
    if len(shape) >= 2:
        numbers = numbers * math.prod(shape[1:]) ** -0.5
    else:
        signs = torch.where(numbers < -1.0, -1.0, 1.0)
        numbers = signs * (1.0 + 0.25 * numbers.abs())
    return (numbers.abs() if positive else numbers).to(dtype)


def positive_parameters(graph: OperatorGraph) -> set[str]:
    """Return the parameters that must not be negative, which are variances."""
    found: set[str] = set()
    for call in graph.calls:
        block = graph.blocks[call.block]
        names = dict(zip(block.parameters, call.parameters, strict=True))
        for operator in block.operators:
            found.update(
                names[name]
                for name, slot in zip(operator.inputs, operator.slots, strict=True)
                if slot == "running_var" and name in names
            )
    return found


def random_slices(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    seed: int,
    device: torch.device,
    dtype: torch.dtype | None,
    graph_dtypes: bool,
) -> dict[str, torch.Tensor]:
    """Return slices of random parameters; each parameter is made whole, sliced and freed."""
    positive = positive_parameters(graph)
    by_whole: dict[str, list[str]] = {}
    for name, part in wanted.items():
        by_whole.setdefault(part.whole, []).append(name)
    tensors: dict[str, torch.Tensor] = {}
    for whole, names in by_whole.items():
        parameter = graph.parameters[whole]
        if parameter.data is not None:
            continue
        numbers = random_parameter(parameter, seed, positive=whole in positive)
        stored = str(numbers.dtype).removeprefix("torch.")
        converted_to = target_dtype(stored, parameter, dtype, graph_dtypes)
        by_runs: dict[Any, torch.Tensor] = {}
        for name in names:
            part = wanted[name]
            if part.runs not in by_runs:
                taken = part.take(numbers)
                if taken.numel() < numbers.numel():
                    taken = taken.clone()  # so that it does not keep the whole alive
                by_runs[part.runs] = taken.to(device, converted_to)
            tensors[name] = by_runs[part.runs]
    return tensors
