"""The contents of buffers that a model of transformers computes itself, its weights left empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    owners = list(_owners(model, "", model))
    left: list[tuple[str, Any]] = []
    for path, module, owner in owners:
        if any(_is_empty(module, name) for name in module._non_persistent_buffers_set):
            filled = _filled([(path, module)], owner, module)
            found.update(filled)
            if len(filled) < sum(_is_empty(module, n) for n in module._non_persistent_buffers_set):
                left.append((path, module))
    if left:  # a module may fill the buffers of those within it
        for _, module, owner in owners:
            if module is owner:
                found = {**_filled(left, owner, module), **found}
    return found


def _filled(
    places: Sequence[tuple[str, Any]], owner: Any, initialised: Any
) -> dict[str, torch.Tensor]:
    """The empty buffers of some modules that the initialisation of one module fills."""
    kept = [dict(module._buffers) for _, module in places]
    found: dict[str, torch.Tensor] = {}
    try:
        names = [
            [name for name in module._non_persistent_buffers_set if _is_empty(module, name)]
            for _, module in places
        ]
        for (_, module), own in zip(places, names, strict=True):
            module._buffers.update({name: _poisoned(module._buffers[name]) for name in own})
        owner._init_weights(initialised)
        for (path, module), own in zip(places, names, strict=True):
            for name in own:
                content = module._buffers[name]
                if isinstance(content, torch.Tensor) and not _is_poisoned(content):
                    found[f"{path}.{name}" if path else name] = content.detach().clone()
    finally:
        for (_, module), buffers in zip(places, kept, strict=True):
            module._buffers.update(buffers)
    return found


def hollow(model: torch.nn.Module, data: dict[str, torch.Tensor]) -> frozenset[str]:
    """Move a model from the meta device to the CPU without memory for its weights.

    Parameters
    ----------
    model
        The model; every weight becomes one element seen as many, tied weights stay tied.
    data
        The contents of the buffers that are known, by name.

    Returns
    -------
    frozenset
        The buffers that no checkpoint holds and whose contents are not known either.
    """
    unknown: set[str] = set()
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, module in model.named_modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None and tensor.is_meta:
                    whole = f"{path}.{name}" if path else name
                    full = data.get(whole)
                    if full is None and name in module._non_persistent_buffers_set:
                        unknown.add(whole)
                    _, filled = known.setdefault(id(tensor), (tensor, _hollow(tensor, full)))
                    group[name] = filled
    return frozenset(unknown)


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
