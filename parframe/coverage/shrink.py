"""A tiny configuration of any type of model, made from the type's default one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle, islice
from typing import Any

import attrs

VOCABULARY = 96
"""How many tokens every tiny model knows."""

RESERVED = 24
"""How many of the last tokens may stand for something else than text."""

_DROPPED = frozenset({"transformers_version", "qk_head_dim", "id2label", "label2id", "dtype"})
_SPECIAL = re.compile(r"(_token|^mask|^pad|^bos|^eos)\w*(_id|_ids|_index)$")
_INDICES = re.compile(r"(idxs|ids|layers)$")


@attrs.frozen
class Kind:
    """What a field of a configuration counts, by its name, and how much of that is enough."""

    what: str
    names: str
    most: int
    exclude: str = "^$"
    layers: bool = False

    def holds(self, name: str) -> bool:
        """Whether a field of this name is of this kind."""
        return bool(re.search(self.names, name)) and not re.search(self.exclude, name)


@attrs.frozen
class Way:
    """One of the ways to make a configuration small.

    Parameters
    ----------
    lists
        Whether lists with an entry for each layer are cut, or left for the configuration to make.
    grouped
        Whether there are fewer key-value heads than heads.
    filled
        Whether widths and numbers of heads and experts that are None by default are given.
    """

    lists: bool
    grouped: bool
    filled: bool = False


WAYS = tuple(
    Way(lists, grouped, filled)
    for filled in (False, True)
    for lists in (True, False)
    for grouped in (True, False)
)
"""In the order in which they are tried."""


def tiny_contents(default: Mapping[str, Any], model_type: str) -> Iterator[dict[str, Any]]:
    """Small contents of a configuration, the likeliest to be legal first.

    Parameters
    ----------
    default
        The content of the type's default configuration.
    model_type
        Of the configuration; a few have an entry of their own in the table.
    """
    seen: list[dict[str, Any]] = []
    for way in WAYS:
        content = _merged(_small(default, way), _own(model_type))
        if content not in seen:
            seen.append(content)
            yield content


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "shrink.toml").read_text(encoding="utf-8"))


@cache
def _kind(name: str) -> Kind | None:
    kinds = (Kind(**row) for row in _table()["kinds"])
    return next((kind for kind in kinds if kind.holds(name)), None)


def _own(model_type: str) -> dict[str, Any]:
    own: dict[str, Any] = _table().get("types", {}).get(model_type, {})
    return own


def _merged(content: Any, own: Any) -> Any:
    if isinstance(content, Mapping) and isinstance(own, Mapping):
        return {**content, **{name: _merged(content.get(name), own[name]) for name in own}}
    return own


def _small(content: Mapping[str, Any], way: Way) -> dict[str, Any]:
    """A configuration's content made small, and those within it."""
    chosen = _layers(content)
    small: dict[str, Any] = {}
    specials = 0
    for name, value in content.items():
        if name in _DROPPED:
            continue
        kind = _kind(name)
        if _SPECIAL.search(name):
            small[name], specials = _special(name, value, specials), specials + 1
        elif isinstance(value, Mapping) and "model_type" in value:
            small[name] = _merged(_small(value, way), _own(str(value["model_type"])))
        elif _is_numbered(value):
            small[name] = _renumbered(value, chosen, way)
        elif isinstance(value, list | tuple) and _is_listed(name, value, content):
            if way.lists:
                small[name] = _cut(name, value, content, chosen)
        elif kind is not None and kind.layers and isinstance(value, int):
            small[name] = len(chosen)
        elif kind is not None:
            small[name] = _less(value, kind, way)
        else:
            small[name] = value
    return small


def _less(value: Any, kind: Kind, way: Way) -> Any:
    if isinstance(value, bool):
        return value
    if value is None and way.filled and re.search("head|expert", kind.what):
        return kind.most
    if isinstance(value, int):
        ungrouped = not way.grouped and "key" in kind.what
        return min(value, 2 * kind.most if ungrouped else kind.most)
    if isinstance(value, Mapping):
        return {name: _less(part, kind, way) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_less(part, kind, way) for part in value]
    return value


def _special(name: str, value: Any, before: int) -> Any:
    """A special token that the small vocabulary has: padding and ends first, others last."""
    if isinstance(value, list | tuple):
        return [_special(name, part, before) for part in value[:1]]
    if not isinstance(value, int) or 0 <= value < 3:
        return value
    for number, beginning in enumerate(("pad", "bos", "eos")):
        if name.startswith(beginning):
            return number
    return VOCABULARY - 1 - before % RESERVED


def _count(content: Mapping[str, Any]) -> int:
    """How many layers there are by default."""
    for name, value in content.items():
        kind = _kind(name)
        if kind is not None and kind.layers and isinstance(value, int):
            return value
    return 0


def _is_listed(name: str, value: Sequence[Any], content: Mapping[str, Any]) -> bool:
    """Whether a list has an entry for each layer, or numbers some of them."""
    return len(value) == _count(content) > 0 or _is_indices(name, value, content)


def _is_numbered(value: Any) -> bool:
    """Whether it is a mapping from the numbers of some layers."""
    return isinstance(value, Mapping) and bool(value) and all(str(key).isdigit() for key in value)


def _renumbered(
    value: Mapping[str, Mapping[str, Any]], chosen: Sequence[int], way: Way
) -> dict[str, Any]:
    numbers = {int(key): _small(part, way) for key, part in value.items()}
    return {f"{i:02}": numbers[layer] for i, layer in enumerate(chosen) if layer in numbers}


def _is_indices(name: str, value: Sequence[Any], content: Mapping[str, Any]) -> bool:
    whole = all(type(part) is int and 0 <= part < _count(content) for part in value)
    return bool(value) and whole and len({*value}) == len(value) and bool(_INDICES.search(name))


def _layers(content: Mapping[str, Any]) -> list[int]:
    """Which of the default layers are kept: each kind twice, if there are several kinds."""
    count = _count(content)
    lists = {
        name: value
        for name, value in content.items()
        if isinstance(value, list | tuple) and _is_listed(name, value, content)
    }
    numbered = [
        {int(key): part for key, part in value.items()}
        for value in content.values()
        if _is_numbered(value)
    ]
    first: dict[str, int] = {}
    for layer in range(count):
        mark: list[Any] = [
            layer in value if _is_indices(name, value, content) else value[layer]
            for name, value in lists.items()
        ]
        mark += [value.get(layer) for value in numbered]
        first.setdefault(repr(mark), layer)
    kinds = list(first.values()) or [0]
    number = max(len(kinds), min(2 * len(kinds), 6), 4 if _has_period(content) else 2)
    if len(kinds) == 1:
        return list(range(min(number, max(count, 1))))
    return list(islice(cycle(kinds), number))


def _has_period(content: Mapping[str, Any]) -> bool:
    """Whether some layers are unlike others by a number alone."""
    kinds = {name: _kind(name) for name, value in content.items() if _above(value, 1)}
    return any(kind is not None and "unlike" in kind.what for kind in kinds.values())


def _above(value: Any, number: int) -> bool:
    return type(value) is int and value > number


def _cut(
    name: str, value: Sequence[Any], content: Mapping[str, Any], chosen: Sequence[int]
) -> list[Any]:
    if _is_indices(name, value, content):
        return [place for place, layer in enumerate(chosen) if layer in value]
    kind = _kind(name)
    kept = [value[layer] for layer in chosen]
    return kept if kind is None or kind.layers else [_less(x, kind, WAYS[0]) for x in kept]
