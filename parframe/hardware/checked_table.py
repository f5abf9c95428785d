"""Table of a hardware file, whose values are read with checks that name the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from parframe.errors import ParframeError, did_you_mean

MAX_TEXT = 2000
"""Most characters of a text."""

LEAST, MOST = 1e-6, 1e18
"""Bounds of every figure of hardware, in any unit."""


class CheckedTable:
    """Table of a file, whose values are read with checks that name the key.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if the values are no table or have a key that is not in `keys`.
    """

    def __init__(self, where: str, values: object, keys: Iterable[str]) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise hardware_error(where, "is not a table", "write it as [table] with keys")
        self.values: Mapping[str, Any] = values
        keys = tuple(keys)
        for key in values:
            if key not in keys:
                what = f"has an unknown key {key!r}{did_you_mean(key, keys)}"
                raise hardware_error(where, what, f"use only {', '.join(keys)}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a non-empty text of one line."""
        expected = f"a text of one line, of {MAX_TEXT} characters at most"
        return str(self._value(key, default, is_one_line, expected))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty if the key is absent."""
        ok = lambda v: isinstance(v, list) and all(map(is_one_line, v))  # noqa: E731
        return tuple(self._value(key, [], ok, "a list of texts of one line each"))

    def number(
        self, key: str, default: float | None = None, least: float = LEAST, most: float = 1e9
    ) -> float:
        """Return a number from ``least`` to ``most``."""
        ok = lambda v: _is_number(v) and least <= v <= most  # noqa: E731
        return float(self._value(key, default, ok, f"a number from {least:g} to {most:g}"))

    def numbers(self, key: str, growing: bool = False) -> tuple[float, ...]:
        """Return a non-empty list of numbers, strictly ascending if ``growing``."""
        ok = lambda v: (  # noqa: E731
            isinstance(v, list)
            and bool(v)
            and all(_is_number(n) and LEAST <= n <= MOST for n in v)
            and not (growing and any(b <= a for a, b in pairwise(v)))
        )
        expected = f"a list of numbers from {LEAST:g} to {MOST:g}"
        expected += ", strictly ascending" * growing
        return tuple(map(float, self._value(key, None, ok, expected)))

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 1."""
        ok = lambda v: _is_number(v) and isinstance(v, int) and 1 <= v <= 1 << 20  # noqa: E731
        return int(self._value(key, default, ok, "a whole number of at least 1"))

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        return bool(self._value(key, default, lambda v: isinstance(v, bool), "true or false"))

    def notes(self) -> dict[str, str]:
        """Return the texts of the table `notes` by key."""
        ok = lambda v: isinstance(v, Mapping) and all(map(is_one_line, v.values()))  # noqa: E731
        return dict(self._value("notes", {}, ok, "texts by the key that they describe"))

    def _value(self, key: str, default: Any, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise hardware_error(self.where, f"has no {key!r}", f"give {expected}")
        if not ok(value):
            raise hardware_error(
                f"{self.where}.{key}", f"is {short_repr(value)}", f"give {expected}"
            )
        return value


def hardware_error(where: str, what: str, hint: str) -> ParframeError:
    """Return the error of a file that cannot be used."""
    return ParframeError("hardware", where, what, hint)


def is_one_line(value: object) -> bool:
    """Return whether a value is a text that can be printed in a line."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_TEXT


def short_repr(value: object) -> str:
    """Return a value approximately as it was written, in at most 60 characters."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of too many digits"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
