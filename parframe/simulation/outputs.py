"""Outputs of a run, assembled from the parts of devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.simulation.regions import Regions, put
from parframe.sizes import evaluate


class Outputs(dict[str, Any]):
    """Named outputs of a model: by name as items or attributes, by index in their order."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | slice):
            return tuple(self.values())[key]
        return super().__getitem__(key)


@attrs.frozen
class OutputPart:
    """A device's part of an output: ``tensor`` is the ``region`` of ``whole``."""

    rank: int
    whole: str
    region: Regions
    tensor: torch.Tensor


def assemble_outputs(
    graph: OperatorGraph, parts: Iterable[OutputPart], sizes: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """Assemble the whole outputs, by name, from the parts of all devices.

    An error of kind ``run`` reports an output that the parts do not cover.
    """
    wholes: dict[str, torch.Tensor] = {}
    covered: dict[str, torch.Tensor] = {}
    for part in parts:
        name, tensor = part.whole, part.tensor
        if name not in wholes:
            shape = [evaluate(size, sizes) for size in graph.tensors[name].shape]
            if any(length < 0 for length in shape):
                raise ParframeError(
                    "run",
                    name,
                    f"it has the shape {shape} for these inputs",
                    "use a larger batch or sequence, or load the model again",
                )
            wholes[name] = tensor.new_empty(shape)
            covered[name] = torch.zeros(shape, dtype=torch.bool)
        put(wholes[name], part.region, tensor)
        put(covered[name], part.region, torch.ones(tensor.shape, dtype=torch.bool))
    for name in graph.output_names:
        if name not in wholes or not covered[name].all():
            raise ParframeError(
                "run",
                f"output {name}",
                "the devices' parts do not cover it",
                "check the plan with parframe.check",
            )
    return wholes


def restore_structure(structure: Any, values: Mapping[str, Any]) -> Any:
    """Replace the names in the structure that a model returns with their values."""
    if isinstance(structure, str):
        return values[structure]
    if isinstance(structure, Mapping):
        filled = {
            key: restore_structure(part, values)
            for key, part in structure.items()
            if key != "$class"
        }
        return Outputs(filled) if "$class" in structure else filled
    if isinstance(structure, tuple | list):
        return tuple(restore_structure(part, values) for part in structure)
    return structure
