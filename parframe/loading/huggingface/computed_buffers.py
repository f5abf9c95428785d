"""Contents of the buffers that a transformers model computes itself, without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch


def compute_buffers(model: Any) -> dict[str, torch.Tensor]:
    """Compute the buffers of a model on the meta device that its ``_init_weights`` fills.

    No checkpoint stores these buffers. The ``PreTrainedModel`` is left as it was.
    """
    contents: dict[str, torch.Tensor] = {}
    initializers = list(_initializers(model, "", model))
    unfilled: list[tuple[str, Any]] = []
    for path, module, initializer in initializers:
        if any(_is_empty(module, name) for name in module._non_persistent_buffers_set):
            filled = _initialize([(path, module)], initializer, module)
            contents.update(filled)
            if len(filled) < sum(_is_empty(module, n) for n in module._non_persistent_buffers_set):
                unfilled.append((path, module))
    if unfilled:  # a model may fill the buffers of its submodules
        for _, module, initializer in initializers:
            if module is initializer:
                contents = {**_initialize(unfilled, initializer, module), **contents}
    return contents


def _initialize(
    modules: Sequence[tuple[str, Any]], initializer: Any, initialized: Any
) -> dict[str, torch.Tensor]:
    """Return the empty buffers of some modules that initializing one module fills."""
    original = [dict(module._buffers) for _, module in modules]
    contents: dict[str, torch.Tensor] = {}
    try:
        empty = [
            [name for name in module._non_persistent_buffers_set if _is_empty(module, name)]
            for _, module in modules
        ]
        for (_, module), names in zip(modules, empty, strict=True):
            for name in names:
                buffer = module._buffers[name]
                module._buffers[name] = torch.full_like(buffer, _marker(buffer.dtype), device="cpu")
        initializer._init_weights(initialized)
        for (path, module), names in zip(modules, empty, strict=True):
            for name in names:
                content = module._buffers[name]
                if isinstance(content, torch.Tensor) and not _is_unwritten(content):
                    contents[f"{path}.{name}" if path else name] = content.detach().clone()
    finally:
        for (_, module), buffers in zip(modules, original, strict=True):
            module._buffers.update(buffers)
    return contents


def move_to_cpu(model: torch.nn.Module, data: dict[str, torch.Tensor]) -> frozenset[str]:
    """Move a model from the meta device to the CPU without memory for its weights.

    Every weight becomes one element, expanded; tied weights stay tied. Returns the buffers that no
    checkpoint stores and whose contents are not in `data`.
    """
    unknown: set[str] = set()
    moved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, module in model.named_modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None and tensor.is_meta:
                    full_name = f"{path}.{name}" if path else name
                    replacement = data.get(full_name)
                    if replacement is None:
                        replacement = _without_memory(tensor)
                        if name in module._non_persistent_buffers_set:
                            unknown.add(full_name)
                    _, group[name] = moved.setdefault(id(tensor), (tensor, replacement))
    return frozenset(unknown)


def _without_memory(tensor: torch.Tensor) -> torch.Tensor:
    single = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    is_weight = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(single, requires_grad=False) if is_weight else single


def _initializers(module: Any, path: str, initializer: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield every module with its path and the innermost model that can initialize it."""
    initializer = module if hasattr(module, "_init_weights") else initializer
    yield path, module, initializer
    for name, child in module.named_children():
        yield from _initializers(child, f"{path}.{name}" if path else name, initializer)


def _is_empty(module: Any, name: str) -> bool:
    buffer = module._buffers.get(name)
    return buffer is not None and bool(buffer.is_meta)


def _marker(dtype: torch.dtype) -> float | int | bool:
    """Return the value that marks elements as unwritten."""
    if dtype is torch.bool:
        return False
    return torch.nan if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype).min


def _is_unwritten(content: torch.Tensor) -> bool:
    """Return whether some element was never written."""
    if content.dtype is torch.bool or content.is_meta:
        return content.is_meta
    if content.is_floating_point() or content.is_complex():
        return bool(torch.isnan(content).any())
    return bool((content == _marker(content.dtype)).any())
