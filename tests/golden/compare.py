"""Names of today mapped to those of the golden files, and the differences of two JSON values."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RELATIVE = 1e-12
"""Relative difference that is allowed: a sum may be added in another order."""

SHOWN = 10
"""Number of differences that a failing test prints."""


class Names:
    """The tables of `renames.toml`; ``used`` collects the names that were applied."""

    def __init__(self, table: Mapping[str, str], scales: Mapping[str, float] | None = None) -> None:
        self.table = dict(table)
        self.scales = dict(scales or {})
        self.used: set[str] = set()
        plain = sorted((name for name in self.table if "/" not in name), key=len, reverse=True)
        joined = "|".join(map(re.escape, plain))
        self._pattern = re.compile(rf"(?<!\w)(?:{joined})(?!\w)") if plain else None

    @classmethod
    def read(cls) -> "Names":
        """Read the table next to this file."""
        content = tomllib.loads((FOLDER / "renames.toml").read_text(encoding="utf-8"))
        return cls(content["names"], content.get("scales"))

    def word(self, name: str, path: tuple[str, ...] = ()) -> str:
        """Return the old name of a key or value at a path; text without an entry by its words."""
        for start in range(len(path) + 1):
            entry = "/".join((*path[start:], name))
            if entry in self.table:
                self.used.add(entry)
                return self.table[entry]
        return self.words(name)

    def words(self, text: str) -> str:
        """Replace every whole word of a text that has an entry without a path."""
        return self._pattern.sub(self._old, text) if self._pattern else text

    def text(self, text: str) -> str:
        """Return the text of a string argument; one that is JSON without lines of source code."""
        if text.startswith(("[{", "{")):
            return self._json(json.loads(text))
        return repr(self.words(text))

    def _json(self, value: Any) -> str:
        if isinstance(value, dict):
            items = {self.words(key): self._json(inner) for key, inner in value.items()}
            return f"{{{', '.join(f'{key}={items[key]}' for key in items if key != 'source')}}}"
        if isinstance(value, list):
            return f"[{', '.join(map(self._json, value))}]"
        return repr(self.words(value) if isinstance(value, str) else value)

    def _old(self, match: re.Match[str]) -> str:
        self.used.add(match[0])
        return self.table[match[0]]


def differences(golden: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield a line for every place where two JSON values differ."""
    if isinstance(golden, dict) and isinstance(found, dict):
        for key in sorted(golden.keys() | found.keys()):
            place = f"{path}.{key}" if path else key
            if key not in found:
                yield f"{place}: missing, golden has {_short(golden[key])}"
            elif key not in golden:
                yield f"{place}: new with {_short(found[key])}, golden has no such key"
            else:
                yield from differences(golden[key], found[key], place)
    elif isinstance(golden, list) and isinstance(found, list):
        if len(golden) != len(found):
            yield f"{path}: golden has {len(golden)} entries, found {len(found)}"
        for place, (left, right) in enumerate(zip(golden, found, strict=False)):
            yield from differences(left, right, f"{path}[{place}]")
    elif not _equal(golden, found):
        yield f"{path}: golden has {_short(golden)}, found {_short(found)}"


def assert_same(golden: Any, found: Any) -> None:
    """Fail with the first differences of two JSON values."""
    lines = list(differences(golden, found))
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise AssertionError("\n".join(["differs from the golden file", *lines[:SHOWN], *more]))


def write(path: Path, value: Any) -> None:
    """Write a JSON value, lists of numbers and strings on one line."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(value, indent=1, sort_keys=True)
    flat = re.sub(r"\[([^][{}]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_text(flat + "\n", encoding="utf-8")


def read(path: Path) -> Any:
    """Read a JSON value."""
    return json.loads(path.read_text(encoding="utf-8"))


def _equal(golden: Any, found: Any) -> bool:
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (golden, found)
    )
    if numbers:
        return math.isclose(golden, found, rel_tol=RELATIVE)
    return type(golden) is type(found) and golden == found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:97]}..."
