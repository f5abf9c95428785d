"""The contents of buffers that a model of transformers computes itself, its weights left empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def computed_buffers(model: Any) -> dict[str, torch.Tensor]:
    """Compute the buffers of a model on the meta device that no checkpoint holds.

    Parameters
    ----------
    model
        A ``PreTrainedModel``; it is left as it was.

    Returns
    -------
    dict
        The buffers that the model's own initialisation fills, by name.
    """
    found: dict[str, torch.Tensor] = {}
    for path, module, owner in _owners(model, "", model):
        names = [name for name in module._non_persistent_buffers_set if _is_empty(module, name)]
        if not names:
            continue
        kept = {name: module._buffers[name] for name in names}
        try:
            for name, buffer in kept.items():
                module._buffers[name] = _poisoned(buffer)
            owner._init_weights(module)
            for name in names:
                content = module._buffers[name]
                if isinstance(content, torch.Tensor) and not _is_poisoned(content):
                    found[f"{path}.{name}" if path else name] = content.detach().clone()
        finally:
            module._buffers.update(kept)
    return found


def hollow(model: torch.nn.Module, data: dict[str, torch.Tensor]) -> None:
    """Move a model from the meta device to the CPU without memory for its weights.

    Parameters
    ----------
    model
        The model; every weight becomes one element seen as many, tied weights stay tied.
    data
        The contents of the buffers that are known, by name.
    """
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, module in model.named_modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None and tensor.is_meta:
                    full = data.get(f"{path}.{name}" if path else name)
                    _, filled = known.setdefault(id(tensor), (tensor, _hollow(tensor, full)))
                    group[name] = filled


def _hollow(tensor: torch.Tensor, content: torch.Tensor | None) -> torch.Tensor:
    if content is not None:
        return content
    single = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(single, requires_grad=False)
    return single


def _owners(module: Any, path: str, owner: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every module with its path and the nearest model around it that can initialise it."""
    owner = module if hasattr(module, "_init_weights") else owner
    yield path, module, owner
    for name, child in module.named_children():
        yield from _owners(child, f"{path}.{name}" if path else name, owner)


def _is_empty(module: Any, name: str) -> bool:
    buffer = module._buffers.get(name)
    return buffer is not None and bool(buffer.is_meta)


def _poison(dtype: torch.dtype) -> float | int | bool:
    if dtype is torch.bool:
        return False
    return torch.nan if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype).min


def _poisoned(buffer: torch.Tensor) -> torch.Tensor:
    value = _poison(buffer.dtype)
    return torch.full(buffer.shape, value, dtype=buffer.dtype, device="cpu")


def _is_poisoned(content: torch.Tensor) -> bool:
    """Whether some element was never written."""
    if content.dtype is torch.bool or content.is_meta:
        return content.is_meta
    if content.is_floating_point() or content.is_complex():
        return bool(torch.isnan(content).any())
    return bool((content == _poison(content.dtype)).any())
