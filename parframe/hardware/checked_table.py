"""A table of a file of hardware, whose values are read with checks that name the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from parframe.errors import ParframeError, did_you_mean

MAX_TEXT = 2000
"""Characters of a text."""

LEAST, MOST = 1e-6, 1e18
"""What is smaller or larger is no hardware's figure, in whatever unit."""


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
        """A text of one line, not empty."""
        expected = f"a text of one line, of {MAX_TEXT} characters at most"
        return str(self._value(key, default, one_line, expected))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or none."""
        ok = lambda v: isinstance(v, list) and all(map(one_line, v))  # noqa: E731
        return tuple(self._value(key, [], ok, "a list of texts of one line each"))

    def number(
        self, key: str, default: float | None = None, least: float = LEAST, most: float = 1e9
    ) -> float:
        """A number from ``least`` to ``most``."""
        ok = lambda v: _number(v) and least <= v <= most  # noqa: E731
        return float(self._value(key, default, ok, f"a number from {least:g} to {most:g}"))

    def numbers(self, key: str, growing: bool = False) -> tuple[float, ...]:
        """A list of numbers, not empty; each above the one before, if ``growing``."""
        ok = lambda v: (  # noqa: E731
            isinstance(v, list)
            and bool(v)
            and all(_number(n) and LEAST <= n <= MOST for n in v)
            and not (growing and any(b <= a for a, b in pairwise(v)))
        )
        expected = f"a list of numbers from {LEAST:g} to {MOST:g}"
        expected += ", each above the one before" * growing
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
        ok = lambda v: isinstance(v, Mapping) and all(map(one_line, v.values()))  # noqa: E731
        return dict(self._value("notes", {}, ok, "texts by the key they are about"))

    def _value(self, key: str, default: Any, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise wrong(self.where, f"has no {key!r}", f"give {expected}")
        if not ok(value):
            raise wrong(f"{self.where}.{key}", f"is {shown(value)}", f"give {expected}")
        return value


def wrong(where: str, what: str, hint: str) -> ParframeError:
    """What is told of a file that cannot be used."""
    return ParframeError("hardware", where, what, hint)


def one_line(value: object) -> bool:
    """Whether it is a text that can be printed in a line."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_TEXT


def shown(value: object) -> str:
    """A value as it was written, or so."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of too many digits"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
