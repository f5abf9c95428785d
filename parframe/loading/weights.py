"""Tensors for a graph's parameters: from safetensors, a state dict, a module, or at random."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph, Parameter
from parframe.loading.folder import weight_files


def state(
    graph: OperatorGraph, weights: Any = None, dtype: torch.dtype | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A tensor for every parameter of a graph.

    Parameters
    ----------
    graph
        The graph.
    weights
        A folder of safetensors, a state dict, a module, or None to draw them at random.
    dtype
        What floating-point tensors are cast to; as they are, if None.
    seed
        Of random weights; each depends on this and on its own name alone.

    Returns
    -------
    dict
        By the graph's names of its parameters.

    Raises
    ------
    ParframeError
        Of kind ``weights``, listing every parameter that is missing or has another shape.
    """
    if weights is None:
        positive = _slots(graph, "running_var")
        found = {
            name: random_parameter(parameter, seed, positive=name in positive)
            for name, parameter in graph.parameters.items()
            if parameter.data is None
        }
    else:
        found = _given(graph, weights)
    _check(graph, found)
    found.update(
        (name, decode(parameter))
        for name, parameter in graph.parameters.items()
        if parameter.data is not None
    )
    return {name: _cast(found[name], dtype) for name in graph.parameters}


def decode(parameter: Parameter) -> torch.Tensor:
    """The contents of a buffer that the graph itself carries.

    Raises
    ------
    ParframeError
        Of kind ``graph`` if it carries none, or another number of bytes than its shape needs.
    """
    kind = getattr(torch, parameter.dtype)
    shape = [int(size) for size in parameter.shape]
    try:
        content = bytearray(base64.b64decode(parameter.data or "", validate=True))
    except ValueError:
        content = bytearray()
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ParframeError(
            "graph", parameter.name, "its data does not fit its shape", "load the model again"
        )
    if not content:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(content, dtype=kind).reshape(shape)


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


def _slots(graph: OperatorGraph, slot: str) -> set[str]:
    """The parameters that stand in this argument of some operator."""
    found: set[str] = set()
    for call in graph.calls:
        block = graph.blocks[call.block]
        names = dict(zip(block.parameters, call.parameters, strict=True))
        for operator in block.operators:
            found.update(
                names[name]
                for name, place in zip(operator.inputs, operator.slots, strict=True)
                if place == slot and name in names
            )
    return found


def _given(graph: OperatorGraph, weights: Any) -> dict[str, torch.Tensor]:
    """The tensors that the source has for the graph's parameters, under the graph's names."""
    if isinstance(weights, str | os.PathLike):
        return _from_folder(graph, Path(weights))
    if isinstance(weights, torch.nn.Module):
        own = dict(weights.named_parameters(remove_duplicate=False))
        weights = {**own, **dict(weights.named_buffers(remove_duplicate=False))}
    if not isinstance(weights, Mapping):
        raise ParframeError(
            "weights",
            type(weights).__name__,
            "not something weights can be read from",
            "give a folder, a state dict, a module, or None",
        )
    return {
        name: weights[known].detach()
        for name, known in _known_names(graph, weights)
        if isinstance(weights[known], torch.Tensor)
    }


def _known_names(graph: OperatorGraph, names: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """For each parameter that is to be read, the name under which the source has it."""
    for name, parameter in graph.parameters.items():
        if parameter.data is None:
            known = next((n for n in (name, *parameter.aliases) if n in names), None)
            if known is not None:
                yield name, known


def _from_folder(graph: OperatorGraph, folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    by_file: dict[Path, list[tuple[str, str]]] = {}
    for name, known in _known_names(graph, files):
        by_file.setdefault(files[known], []).append((name, known))
    found: dict[str, torch.Tensor] = {}
    for file, wanted in by_file.items():
        try:
            with safe_open(file, framework="pt") as content:
                found.update((name, content.get_tensor(known)) for name, known in wanted)
        except (SafetensorError, OSError) as error:
            raise ParframeError(
                "weights", str(file), f"cannot be read ({error})", "download it again"
            ) from error
    return found


def _check(graph: OperatorGraph, found: Mapping[str, torch.Tensor]) -> None:
    wrong = []
    for name, parameter in graph.parameters.items():
        if parameter.data is not None:
            continue
        if name not in found:
            wrong.append(f"{name} is missing")
        elif tuple(found[name].shape) != parameter.shape:
            wrong.append(
                f"{name} has the shape {list(found[name].shape)}, not {list(parameter.shape)}"
            )
    if wrong:
        raise ParframeError(
            "weights",
            f"{len(wrong)} of {len(graph.parameters)} weights",
            "; ".join(wrong),
            "give the weights of this model",
        )


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
