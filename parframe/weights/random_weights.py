"""Random weights: of each parameter the same numbers on every rank and in the whole model."""

from __future__ import annotations

import hashlib
import math

import torch

from parframe.graph import OperatorGraph, Parameter


def random_parameter(parameter: Parameter, seed: int, positive: bool = False) -> torch.Tensor:
    """Random contents of a parameter that depend on its name and the seed alone.

    Matrices keep the scale of what passes through them; vectors lie around 1, of both signs.
    """
    digest = hashlib.sha256(f"{seed}:{parameter.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    shape = [int(size) for size in parameter.shape]
    kind = getattr(torch, parameter.dtype)
    if not kind.is_floating_point:
        return torch.zeros(shape, dtype=kind)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    if len(shape) >= 2:
        drawn = drawn * math.prod(shape[1:]) ** -0.5
    else:
        signs = torch.where(drawn < -1.0, -1.0, 1.0)
        drawn = signs * (1.0 + 0.25 * drawn.abs())
    return (drawn.abs() if positive else drawn).to(kind)


def positive_parameters(graph: OperatorGraph) -> set[str]:
    """The parameters of which no element may be negative: variances."""
    found: set[str] = set()
    for call in graph.calls:
        block = graph.blocks[call.block]
        names = dict(zip(block.parameters, call.parameters, strict=True))
        for operator in block.operators:
            found.update(
                names[name]
                for name, place in zip(operator.inputs, operator.slots, strict=True)
                if place == "running_var" and name in names
            )
    return found
