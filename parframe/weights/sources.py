"""Where weights come from: the tensors of a folder, a state dict, a module or a pickle."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.ops.schema import dtype_name
from parframe.weights.checkpoint_folder import stored_tensors
from parframe.weights.safetensors_header import StoredTensor

_PICKLES = (".bin", ".pt", ".pth")


@attrs.frozen
class RandomWeights:
    """Random weights: each parameter depends on the seed and on its own name alone."""

    seed: int = 0


@attrs.frozen
class WeightSource:
    """Tensors by name.

    Parameters
    ----------
    where
        What they are of, for errors.
    tensors
        Those in files, or those in memory.
    own
        Whether the names are surely those of the model itself.
    """

    where: str
    tensors: Mapping[str, StoredTensor | torch.Tensor]
    own: bool = False

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> str:
        """The dtype of a tensor, by PyTorch's name where it has one."""
        found = self.tensors[name]
        return found.dtype if isinstance(found, StoredTensor) else dtype_name(found.dtype)


def origin_of(weights: Any, pickled: bool = False) -> WeightSource:
    """The tensors of what was given as weights; of files only the headers are read.

    Parameters
    ----------
    weights
        A folder of safetensors or one such file, a state dict or a module.
    pickled
        Whether a ``.bin`` or ``.pt``, or a folder of these, may be read.

    Raises
    ------
    ParframeError
        Of kind ``weights``, if it is none of these or cannot be read.
    """
    if isinstance(weights, str | os.PathLike):
        return _of_path(Path(weights), pickled)
    if isinstance(weights, torch.nn.Module):
        own = dict(weights.named_parameters(remove_duplicate=False))
        found = {**own, **dict(weights.named_buffers(remove_duplicate=False))}
        return WeightSource(type(weights).__name__, _detached(found), own=True)
    if isinstance(weights, Mapping):
        return WeightSource("the state dict", _detached(weights))
    raise ParframeError(
        "weights",
        type(weights).__name__,
        "not something weights can be read from",
        "give a folder, a state dict, a module, or 'random' for random ones",
    )


def is_random(weights: Any) -> bool:
    """Whether random weights were asked for: as `RandomWeights`, or by the word."""
    return isinstance(weights, RandomWeights) or (isinstance(weights, str) and weights == "random")


def seed_of(weights: Any) -> int:
    """The seed of random weights."""
    return weights.seed if isinstance(weights, RandomWeights) else 0


def _detached(tensors: Mapping[str, Any]) -> dict[str, StoredTensor | torch.Tensor]:
    return {
        str(name): tensor.detach()
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }


def _of_path(path: Path, pickled: bool) -> WeightSource:
    files = _pickles(path)
    if not files:
        return WeightSource(str(path), stored_tensors(path))
    if not pickled:
        raise ParframeError(
            "weights",
            str(files[0]),
            "is a pickle, which is read only where that is asked for",
            "convert it to safetensors, or give pickled=True (--pickled)",
        )
    found: dict[str, StoredTensor | torch.Tensor] = {}
    for file in files:
        found.update(_unpickled(file))
    return WeightSource(str(path), found)


def _pickles(path: Path) -> list[Path]:
    """The pickles that a path stands for, where it stands for nothing better."""
    if path.is_file():
        return [path] if path.suffix in _PICKLES else []
    if any(path.glob("*.safetensors")):
        return []
    return sorted(file for file in path.glob("*") if file.suffix in _PICKLES)


def _unpickled(file: Path) -> dict[str, StoredTensor | torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        first = next(iter(str(error).splitlines()), "")[:200]
        raise ParframeError(
            "weights",
            str(file),
            f"cannot be read as tensors alone ({first})",
            "convert it to safetensors where it was made",
        ) from error
    if not isinstance(content, Mapping):
        raise ParframeError(
            "weights", str(file), "is not a state dict", "save module.state_dict() alone"
        )
    return _detached(content)
