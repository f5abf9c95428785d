"""Small configurations of any model type, derived from the type's default configuration."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle, islice, product
from typing import Any

import attrs

VOCABULARY = 96
"""The vocabulary size of every small model."""

RESERVED = 24
"""The number of tokens, from the last, that may be special tokens."""

_DROPPED = frozenset({"transformers_version", "qk_head_dim", "id2label", "label2id", "dtype"})
_SPECIAL = re.compile(r"(_token|^mask|^pad|^bos|^eos)\w*(_id|_ids|_index)$")
_INDICES = re.compile(r"(idxs|ids|layers)$")


@attrs.frozen
class FieldKind:
    """Kind of configuration fields, with the largest value in a small configuration."""

    what: str  # a description of what the fields count
    names: str  # a regular expression of the names of the fields
    most: int
    exclude: str = "^$"  # a regular expression of names to leave out
    layers: bool = False  # whether the fields count layers

    def matches(self, name: str) -> bool:
        """Return whether a field of this name is of this kind."""
        return bool(re.search(self.names, name)) and not re.search(self.exclude, name)


@attrs.frozen
class Variant:
    """Variant of a small configuration."""

    lists: bool  # whether lists with an entry for each layer are shortened, or else left out
    grouped: bool  # whether there are fewer key-value heads than heads
    filled: bool = False  # whether widths and counts that are None by default get a value


VARIANTS = tuple(
    Variant(lists, grouped, filled)
    for filled, lists, grouped in product((False, True), (True, False), (True, False))
)
"""The variants, in the order in which they are tried."""


def small_configs(default: Mapping[str, Any], model_type: str) -> Iterator[dict[str, Any]]:
    """Yield the contents of small configurations, those most likely to be valid first.

    A few model types have values of their own in small_config.toml.
    """
    seen: list[dict[str, Any]] = []
    for variant in VARIANTS:
        content = _merge(_shrink(default, variant), _type_values(model_type))
        if content not in seen:
            seen.append(content)
            yield content


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "small_config.toml").read_text(encoding="utf-8"))


@cache
def _kind(name: str) -> FieldKind | None:
    kinds = (FieldKind(**row) for row in _table()["kinds"])
    return next((kind for kind in kinds if kind.matches(name)), None)


def _type_values(model_type: str) -> Any:
    return _table().get("types", {}).get(model_type, {})


def _merge(content: Any, values: Any) -> Any:
    if isinstance(content, Mapping) and isinstance(values, Mapping):
        return {**content, **{name: _merge(content.get(name), values[name]) for name in values}}
    return values


def _shrink(content: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Shrink the content of a configuration and of its sub-configurations."""
    chosen = _choose_layers(content)
    small: dict[str, Any] = {}
    specials = 0
    for name, value in content.items():
        if name in _DROPPED:
            continue
        kind = _kind(name)
        if _SPECIAL.search(name):
            small[name], specials = _special(name, value, specials), specials + 1
        elif isinstance(value, Mapping) and "model_type" in value:
            small[name] = _merge(_shrink(value, variant), _type_values(str(value["model_type"])))
        elif _is_layer_map(value):
            layers = {int(key): _shrink(part, variant) for key, part in value.items()}
            kept = [(number, layer) for number, layer in enumerate(chosen) if layer in layers]
            small[name] = {f"{number:02}": layers[layer] for number, layer in kept}
        elif isinstance(value, list | tuple) and _is_layer_list(name, value, content):
            if variant.lists:
                small[name] = _shorten(name, value, content, chosen)
        elif kind is not None and kind.layers and isinstance(value, int):
            small[name] = len(chosen)
        else:
            small[name] = _limit(value, kind, variant) if kind is not None else value
    return small


def _limit(value: Any, kind: FieldKind, variant: Variant) -> Any:
    """Limit the numbers of a field to the largest value of its kind."""
    if isinstance(value, bool):
        return value
    if value is None and variant.filled and re.search("head|expert", kind.what):
        return kind.most
    if isinstance(value, int):
        ungrouped = not variant.grouped and "key" in kind.what
        return min(value, 2 * kind.most if ungrouped else kind.most)
    if isinstance(value, Mapping):
        return {name: _limit(part, kind, variant) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_limit(part, kind, variant) for part in value]
    return value


def _special(name: str, value: Any, before: int) -> Any:
    """Return a special token in the small vocabulary: padding, bos and eos first, others last."""
    if isinstance(value, list | tuple):
        return [_special(name, part, before) for part in value[:1]]
    if not isinstance(value, int) or 0 <= value < 3:
        return value
    for number, beginning in enumerate(("pad", "bos", "eos")):
        if name.startswith(beginning):
            return number
    return VOCABULARY - 1 - before % RESERVED


def _count_layers(content: Mapping[str, Any]) -> int:
    """Return the default number of layers."""
    for name, value in content.items():
        kind = _kind(name)
        if kind is not None and kind.layers and isinstance(value, int):
            return value
    return 0


def _is_layer_list(name: str, value: Sequence[Any], content: Mapping[str, Any]) -> bool:
    """Return whether a list has an entry for each layer, or contains the numbers of layers."""
    return len(value) == _count_layers(content) > 0 or _is_layer_numbers(name, value, content)


def _is_layer_map(value: Any) -> bool:
    """Return whether a value maps the numbers of layers to their settings."""
    return isinstance(value, Mapping) and bool(value) and all(str(key).isdigit() for key in value)


def _is_layer_numbers(name: str, value: Sequence[Any], content: Mapping[str, Any]) -> bool:
    """Return whether a list contains the numbers of layers."""
    in_range = all(type(part) is int and 0 <= part < _count_layers(content) for part in value)
    return bool(value) and in_range and len({*value}) == len(value) and bool(_INDICES.search(name))


def _choose_layers(content: Mapping[str, Any]) -> list[int]:
    """Choose the layers to keep: each kind twice, if there are several kinds."""
    count = _count_layers(content)
    lists = {
        name: value
        for name, value in content.items()
        if isinstance(value, list | tuple) and _is_layer_list(name, value, content)
    }
    maps = [
        {int(key): part for key, part in value.items()}
        for value in content.values()
        if _is_layer_map(value)
    ]
    first: dict[str, int] = {}
    for layer in range(count):
        settings: list[Any] = [
            layer in value if _is_layer_numbers(name, value, content) else value[layer]
            for name, value in lists.items()
        ]
        settings += [value.get(layer) for value in maps]
        first.setdefault(repr(settings), layer)
    kinds = list(first.values()) or [0]
    number = max(len(kinds), min(2 * len(kinds), 6), 4 if _has_period(content) else 2)
    if len(kinds) == 1:
        return list(range(min(number, max(count, 1))))
    return list(islice(cycle(kinds), number))


def _has_period(content: Mapping[str, Any]) -> bool:
    """Return whether a single number makes some layers differ from others."""
    numbers = [name for name, value in content.items() if type(value) is int and value > 1]
    kinds = [kind for kind in map(_kind, numbers) if kind is not None]
    return any("differ" in kind.what for kind in kinds)


def _shorten(
    name: str, value: Sequence[Any], content: Mapping[str, Any], chosen: Sequence[int]
) -> list[Any]:
    """Shorten a list to the chosen layers."""
    if _is_layer_numbers(name, value, content):
        return [position for position, layer in enumerate(chosen) if layer in value]
    kind = _kind(name)
    kept = [value[layer] for layer in chosen]
    return kept if kind is None or kind.layers else [_limit(x, kind, VARIANTS[0]) for x in kept]
