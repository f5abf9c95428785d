"""What a run returns, put together from the devices' parts."""

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
    """A model's named outputs: by name as items or attributes, by number in their order."""

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
class Piece:
    """A device's part of an output: ``tensor`` is the ``region`` of ``whole``."""

    rank: int
    whole: str
    region: Regions
    tensor: torch.Tensor


def assembled(
    graph: OperatorGraph, pieces: Iterable[Piece], sizes: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """The whole outputs, by name.

    Raises
    ------
    ParframeError
        Of kind ``run``, if no device gives some part of an output.
    """
    found: dict[str, torch.Tensor] = {}
    covered: dict[str, torch.Tensor] = {}
    for piece in pieces:
        name, own = piece.whole, piece.tensor
        if name not in found:
            shape = [evaluate(size, sizes) for size in graph.tensors[name].shape]
            if any(length < 0 for length in shape):
                raise ParframeError(
                    "run",
                    name,
                    f"it has the shape {shape} for these inputs",
                    "use a larger batch or sequence, or load the model again",
                )
            found[name] = own.new_empty(shape)
            covered[name] = torch.zeros(shape, dtype=torch.bool)
        put(found[name], piece.region, own)
        put(covered[name], piece.region, torch.ones(own.shape, dtype=torch.bool))
    for name in graph.output_names:
        if name not in found or not covered[name].all():
            raise ParframeError(
                "run",
                f"output {name}",
                "no device gives all of it",
                "check the plan with parframe.check",
            )
    return found


def structured(structure: Any, values: Mapping[str, Any]) -> Any:
    """The structure a model returns, with values in place of names."""
    if isinstance(structure, str):
        return values[structure]
    if isinstance(structure, Mapping):
        filled = {k: structured(part, values) for k, part in structure.items() if k != "$class"}
        return Outputs(filled) if "$class" in structure else filled
    if isinstance(structure, tuple | list):
        return tuple(structured(part, values) for part in structure)
    return structure
