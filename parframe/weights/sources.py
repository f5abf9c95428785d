"""Sources of weights: the tensors of a folder, a state dict, a module or a pickle."""

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
class WeightSource:
    """Tensors by name, in files or in memory.

    - ``description``: the description of the source, for errors.
    - ``model_names``: whether the names are certainly those of the model.
    """

    description: str
    tensors: Mapping[str, StoredTensor | torch.Tensor]
    model_names: bool = False

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor, by PyTorch's name where it has one."""
        tensor = self.tensors[name]
        return tensor.dtype if isinstance(tensor, StoredTensor) else dtype_name(tensor.dtype)


def open_source(weights: Any, pickled: bool = False) -> WeightSource:
    """Open weights as a source of tensors; only the headers of files are read.

    - ``weights``: a folder of safetensors or one such file, a state dict or a module.
    - ``pickled``: whether a ``.bin`` or ``.pt``, or a folder of these, may be read.

    Raise ``ParframeError`` of kind ``weights``, if it is none of these or cannot be read.
    """
    if isinstance(weights, str | os.PathLike):
        return _open_path(Path(weights), pickled)
    if isinstance(weights, torch.nn.Module):
        parameters = dict(weights.named_parameters(remove_duplicate=False))
        tensors = {**parameters, **dict(weights.named_buffers(remove_duplicate=False))}
        return WeightSource(type(weights).__name__, _detach(tensors), model_names=True)
    if isinstance(weights, Mapping):
        return WeightSource("the state dict", _detach(weights))
    raise ParframeError(
        "weights",
        type(weights).__name__,
        "weights cannot be read from it",
        "use a folder, a state dict, a module, or 'random' for random ones",
    )


def _detach(tensors: Mapping[str, Any]) -> dict[str, StoredTensor | torch.Tensor]:
    return {
        str(name): tensor.detach()
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }


def _open_path(path: Path, pickled: bool) -> WeightSource:
    files = _pickle_files(path)
    if not files:
        return WeightSource(str(path), stored_tensors(path))
    if not pickled:
        raise ParframeError(
            "weights",
            str(files[0]),
            "is a pickle, and pickles are not read by default",
            "convert it to safetensors, or set pickled=True (--pickled)",
        )
    tensors: dict[str, StoredTensor | torch.Tensor] = {}
    for file in files:
        tensors.update(_read_pickle(file))
    return WeightSource(str(path), tensors)


def _pickle_files(path: Path) -> list[Path]:
    """Return the pickles of a path, unless it has safetensors."""
    if path.is_file():
        return [path] if path.suffix in _PICKLES else []
    if any(path.glob("*.safetensors")):
        return []
    return sorted(file for file in path.glob("*") if file.suffix in _PICKLES)


def _read_pickle(file: Path) -> dict[str, StoredTensor | torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        first = next(iter(str(error).splitlines()), "")[:200]
        raise ParframeError(
            "weights",
            str(file),
            f"cannot be read as tensors alone ({first})",
            "convert it to safetensors on the machine that wrote it",
        ) from error
    if not isinstance(content, Mapping):
        raise ParframeError(
            "weights", str(file), "is not a state dict", "save module.state_dict() alone"
        )
    return _detach(content)
