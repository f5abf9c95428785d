"""A table of a file of hardware, whose values are read with checks that name the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from parframe.errors import ParframeError, did_you_mean


class Table:
    """A table of a file, whose values are read with checks that name the key."""

    def __init__(self, where: str, values: object, keys: Iterable[str]) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise wrong(where, "is not a table", "write it as [table] with keys")
        self.values: Mapping[str, Any] = values
        keys = tuple(keys)
        for key in values:
            if key not in keys:
                what = f"has no key {key!r}{did_you_mean(key, keys)}"
                raise wrong(where, what, f"give {', '.join(keys)}")

    def text(self, key: str, default: str | None = None) -> str:
        """A text, not empty."""
        return str(self._value(key, default, lambda v: isinstance(v, str) and bool(v), "a text"))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or none."""
        ok = lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v)  # noqa: E731
        return tuple(self._value(key, [], ok, "a list of texts"))

    def number(
        self, key: str, default: float | None = None, least: float = 0.0, most: float = 1e9
    ) -> float:
        """A number above ``least`` and up to ``most``."""
        ok = lambda v: _number(v) and least < v <= most  # noqa: E731
        return float(self._value(key, default, ok, f"a number above {least:g}, at most {most:g}"))

    def numbers(self, key: str, growing: bool = False) -> tuple[float, ...]:
        """A list of numbers above zero, not empty; each above the one before, if ``growing``."""
        ok = lambda v: (  # noqa: E731
            isinstance(v, list)
            and bool(v)
            and all(_number(n) and 0 < n < math.inf for n in v)
            and not (growing and any(b <= a for a, b in pairwise(v)))
        )
        expected = "a list of numbers above 0" + ", each above the one before" * growing
        return tuple(map(float, self._value(key, None, ok, expected)))

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        ok = lambda v: _number(v) and isinstance(v, int) and 1 <= v <= 1 << 20  # noqa: E731
        return int(self._value(key, default, ok, "a whole number from 1"))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._value(key, default, lambda v: isinstance(v, bool), "true or false"))

    def notes(self) -> dict[str, str]:
        """Texts by key."""
        ok = lambda v: (  # noqa: E731
            isinstance(v, Mapping) and all(isinstance(t, str) for t in v.values())
        )
        return dict(self._value("notes", {}, ok, "texts by the key they are about"))

    def _value(self, key: str, default: Any, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise wrong(self.where, f"has no {key!r}", f"give {expected}")
        if not ok(value):
            shown = repr(value)
            raise wrong(f"{self.where}.{key}", f"is {shown[:60]}", f"give {expected}")
        return value


def wrong(where: str, what: str, mend: str) -> ParframeError:
    """What is told of a file that cannot be used."""
    return ParframeError("hardware", where, what, mend)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
