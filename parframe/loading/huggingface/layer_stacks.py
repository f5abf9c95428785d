"""Which layers of a model are equal, and how few of them have to be exported."""

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
    """A list of layers in a model.

    Parameters
    ----------
    path
        The list's path (``model.layers``).
    kinds
        For each layer a number that equal layers share.
    kept
        How many layers, from the first, are enough to see every kind in its places.
    """

    path: str
    kinds: tuple[int, ...]
    kept: int


def stacks(model: nn.Module, configs: Sequence[Any]) -> list[Stack]:
    """The lists of layers in a model that are longer than they need be for export.

    A list of modules that have none within them is no list of layers: its members may be used one
    by one.

    Parameters
    ----------
    model
        The model.
    configs
        Its configurations: a list in them with as many entries as there are layers tells
        layers apart.
    """
    found = []
    for path, module in model.named_modules():
        indexed = any(part.isdigit() for part in path.split("."))
        deep = any(len(list(part.children())) for part in module.children())
        if isinstance(module, nn.ModuleList) and path and not indexed and deep:
            kinds = _kinds(list(module), configs)
            kept = _enough(kinds)
            if kept < len(kinds):
                found.append(Stack(path, kinds, kept))
    return found


def truncate(model: nn.Module, found: Sequence[Stack]) -> None:
    """Keep only as many layers of each list as its stack says."""
    for stack in found:
        parent, _, name = stack.path.rpartition(".")
        layers = list(model.get_submodule(stack.path).children())
        setattr(model.get_submodule(parent), name, nn.ModuleList(layers[: stack.kept]))


def _enough(kinds: Sequence[int]) -> int:
    """The shortest beginning with two layers of every kind, or all where there are fewer."""
    totals = Counter(kinds)
    seen: Counter[int] = Counter()
    for position, kind in enumerate(kinds):
        seen[kind] += 1
        if all(seen[each] >= min(totals[each], 2) for each in totals):
            return position + 1
    return len(kinds)


def _kinds(layers: Sequence[nn.Module], configs: Sequence[Any]) -> tuple[int, ...]:
    """A number for each layer, equal for layers that are built and configured alike."""
    prints = [dict(_fingerprint(layer)) for layer in layers]
    for position, entries in enumerate(_listed(configs, len(layers))):
        prints[position].update(entries)
    _forget_indices(prints)
    known: dict[Any, int] = {}
    return tuple(known.setdefault(frozenset(each.items()), len(known)) for each in prints)


def _fingerprint(layer: nn.Module) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a layer is made of: classes, shapes and attributes, by place."""
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
    """A value that can be compared; objects are equal only to themselves."""
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


def _listed(configs: Sequence[Any], count: int) -> list[dict[tuple[str, ...], Any]]:
    """For each layer, its entries in the configurations' lists of one entry per layer."""
    entries: list[dict[tuple[str, ...], Any]] = [{} for _ in range(count)]
    for number, config in enumerate(configs):
        for name, value in vars(config).items():
            if isinstance(value, list | tuple) and len(value) == count:
                for position, part in enumerate(value):
                    entries[position]["config", str(number), name] = _summary(part)
    return entries


def _forget_indices(prints: Sequence[dict[tuple[str, ...], Any]]) -> None:
    """Leave out what is every layer's own index."""
    for key in {key for each in prints for key in each}:
        values = [(position, each[key]) for position, each in enumerate(prints) if key in each]
        if all(value == ("int", position) for position, value in values):
            for position, _ in values:
                del prints[position][key]
