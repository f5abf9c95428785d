"""Stacks of equal layers in a model, of which only the first few have to be exported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import nn

_SIMPLE = (int, float, bool, str, bytes, type(None), torch.dtype)
_INTERNAL = frozenset(vars(nn.Module()))


@attrs.frozen
class Stack:
    """List of layers in a model."""

    path: str  # that of the list (``model.layers``)
    kinds: tuple[int, ...]  # for each layer a number that equal layers share
    exported: int  # the number of first layers that show how every kind is connected


def find_stacks(model: nn.Module, configs: Sequence[Any]) -> list[Stack]:
    """Find the lists of layers in a model that need not be exported in full.

    A list of modules without submodules is not a list of layers, because the model's code may use
    each of them differently. Layers also differ if a list in `configs` that has one entry for each
    layer has different entries for them.
    """
    stacks = []
    for path, module in model.named_modules():
        indexed = any(part.isdigit() for part in path.split("."))
        deep = any(len(list(part.children())) for part in module.children())
        if isinstance(module, nn.ModuleList) and path and not indexed and deep:
            kinds = _kinds(list(module), configs)
            exported = _count_to_export(kinds)
            if exported < len(kinds):
                stacks.append(Stack(path, kinds, exported))
    return stacks


def truncate(model: nn.Module, stacks: Sequence[Stack]) -> None:
    """Remove from a model the layers that are not exported."""
    for stack in stacks:
        parent, _, name = stack.path.rpartition(".")
        layers = list(model.get_submodule(stack.path).children())
        setattr(model.get_submodule(parent), name, nn.ModuleList(layers[: stack.exported]))


def _count_to_export(kinds: Sequence[int]) -> int:
    """Return the smallest number of first layers that has two of every kind, or all of a kind."""
    totals = Counter(kinds)
    seen: Counter[int] = Counter()
    for position, kind in enumerate(kinds):
        seen[kind] += 1
        if all(seen[each] >= min(totals[each], 2) for each in totals):
            return position + 1
    return len(kinds)


def _kinds(layers: Sequence[nn.Module], configs: Sequence[Any]) -> tuple[int, ...]:
    """Return a number for each layer, equal for layers of equal structure and configuration."""
    fingerprints = [dict(_fingerprint(layer)) for layer in layers]
    for position, entries in enumerate(_config_entries(configs, len(layers))):
        fingerprints[position].update(entries)
    _remove_indices(fingerprints)
    numbers: dict[Any, int] = {}
    return tuple(numbers.setdefault(frozenset(each.items()), len(numbers)) for each in fingerprints)


def _fingerprint(layer: nn.Module) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the classes, shapes and attributes of a layer, by path and name."""
    for path, module in layer.named_modules():
        yield (path, "class"), f"{type(module).__module__}.{type(module).__qualname__}"
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                stored = name not in module._non_persistent_buffers_set
                yield (path, name), (tuple(tensor.shape), str(tensor.dtype), stored)
        for name, value in vars(module).items():
            if name not in _INTERNAL:
                yield (path, name), _summary(value)


def _summary(value: Any) -> Any:
    """Return a hashable form of an attribute; other objects are equal only to themselves."""
    if isinstance(value, _SIMPLE):
        return (type(value).__name__, value)
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_summary(part) for part in value))
    if isinstance(value, Mapping):
        return ("mapping", *((str(key), _summary(part)) for key, part in value.items()))
    if isinstance(value, partial):
        return ("partial", *(_summary(x) for x in (value.func, value.args, value.keywords)))
    function = getattr(value, "__func__", value)
    if hasattr(function, "__qualname__"):
        return ("code", function.__module__, function.__qualname__)
    return ("object", id(value))


def _config_entries(configs: Sequence[Any], count: int) -> list[dict[tuple[str, ...], Any]]:
    """Return, for each layer, its entries in the configurations' lists of one entry per layer."""
    entries: list[dict[tuple[str, ...], Any]] = [{} for _ in range(count)]
    for number, config in enumerate(configs):
        for name, value in vars(config).items():
            if isinstance(value, list | tuple) and len(value) == count:
                for position, part in enumerate(value):
                    entries[position]["config", str(number), name] = _summary(part)
    return entries


def _remove_indices(fingerprints: Sequence[dict[tuple[str, ...], Any]]) -> None:
    """Remove from fingerprints the attributes that are the layer's index in every layer."""
    for key in {key for each in fingerprints for key in each}:
        values = [
            (position, each[key]) for position, each in enumerate(fingerprints) if key in each
        ]
        if all(value == ("int", position) for position, value in values):
            for position, _ in values:
                del fingerprints[position][key]
