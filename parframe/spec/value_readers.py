"""Readers of single values of a spec: each takes a TOML value and gives what it means."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parframe.mesh import MAX_DEVICES, MAX_SHARE

Read = Callable[[Any, Path], Any]
"""From a value and the folder of the spec to what is meant; ValueError says what is wrong."""

UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
"""Bytes in each unit of memory."""

_BYTES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)")
_IMPORT = re.compile(r"\s*(?:!!|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\s*\Z)|.*__import__", re.DOTALL)


def text(value: Any, folder: Path) -> str:
    """Read text."""
    if not isinstance(value, str):
        raise ValueError(wrong(value))
    return value


def truth(value: Any, folder: Path) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(wrong(value))
    return value


def one_of(*choices: str) -> Read:
    """Make a reader of one of several words."""

    def read(value: Any, folder: Path) -> str:
        if value not in choices or not isinstance(value, str):
            raise ValueError(wrong(value))
        return value

    return read


def whole(least: int, most: int) -> Read:
    """Make a reader of a whole number between bounds."""

    def read(value: Any, folder: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(wrong(value))
        return value

    return read


count = whole(1, 2**31 - 1)
"""Reader of a size."""

degree = whole(1, MAX_DEVICES)
"""Reader of a number of devices."""


def words(value: Any, folder: Path) -> tuple[str, ...]:
    """Read a list of text without repeats."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(wrong(value))
    if len(set(value)) < len(value):
        raise ValueError("names one thing twice")
    return tuple(value)


def prompts(value: Any, folder: Path) -> tuple[str | tuple[int, ...], ...]:
    """Read a list of texts, or of lists of token ids."""
    if not isinstance(value, list) or not value:
        raise ValueError(wrong(value))
    found: list[str | tuple[int, ...]] = []
    for item in value:
        ids = item if isinstance(item, list) else []
        if any(isinstance(number, bool) or not isinstance(number, int) for number in ids):
            raise ValueError(f"a prompt {wrong(item)}")
        if not item or not isinstance(item, str | list):
            raise ValueError(f"a prompt {wrong(item)}")
        found.append(item if isinstance(item, str) else tuple(ids))
    return tuple(found)


def shares(value: Any, folder: Path) -> tuple[int, ...]:
    """Read a list of positive whole numbers."""
    if not isinstance(value, list) or not value:
        raise ValueError(wrong(value))
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or not 1 <= item <= MAX_SHARE:
            raise ValueError(f"a share {wrong(item)}")
    return tuple(value)


def table(value: Any, folder: Path) -> Mapping[str, Any]:
    """Read a table as it is."""
    if not isinstance(value, dict):
        raise ValueError(wrong(value))
    return value


def size_in_bytes(value: Any, folder: Path) -> int:
    """Read an amount of memory."""
    if isinstance(value, str):
        found = _BYTES.fullmatch(value)
        if found is None or found[2] not in UNITS:
            raise ValueError(wrong(value))
        value = int(float(found[1]) * UNITS[found[2]])
    return int(whole(1, 2**60)(value, folder))


_LONGEST_NAME = 200


def path_inside(value: Any, folder: Path) -> Path:
    """Read a relative path that does not leave the folder of the spec."""
    relative = text(value, folder)
    if not relative.strip() or not relative.isprintable():
        raise ValueError(wrong(value))
    if any(len(part.encode()) > _LONGEST_NAME for part in Path(relative).parts):
        raise ValueError(f"{wrong(value)}, which is too long")
    if Path(relative).is_absolute() or relative.startswith("~"):
        raise ValueError(f"{wrong(value)}, which is not relative to the folder of the spec")
    root = folder.resolve()
    try:
        resolved = (root / relative).resolve()
    except (OSError, RuntimeError) as fault:
        raise ValueError(f"{wrong(value)}, which cannot be followed") from fault
    if root not in resolved.parents:
        raise ValueError(f"{wrong(value)}, which leaves the folder of the spec")
    return resolved


def is_import(value: str) -> bool:
    """Tell whether text looks as if it named Python code to be imported."""
    return _IMPORT.match(value) is not None


def wrong(value: Any) -> str:
    """Say what stands where something else should."""
    if isinstance(value, dict):
        return "is a table"
    if isinstance(value, list):
        return "is an empty list" if not value else f"is a list of {len(value)}"
    shown = str(value).lower() if isinstance(value, bool) else _short(value)
    return f"is {shown}"


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    shown = repr(value) if isinstance(value, str | int | float) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
