"""JSON text from outside: its size, nesting, keys and numbers are checked before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError

LARGEST = 1 << 30
"""The longest JSON text, in characters, that is parsed."""


def read_json(path: str | os.PathLike[str], kind: str, largest: int = LARGEST) -> Any:
    """Read the value in a JSON file.

    Parameters
    ----------
    path
        The file.
    kind
        The kind of the errors.
    largest
        The largest file that is read, in bytes.

    Raises
    ------
    ParframeError
        Of this kind, if the file cannot be read, is too large, or is not legal JSON.
    """
    return parse_json(read_text(path, kind, largest), kind)


def read_text(path: str | os.PathLike[str], kind: str, largest: int = LARGEST) -> str:
    """Read the text of a file that is not larger than allowed.

    Raises
    ------
    ParframeError
        Of this kind, if the file is missing, a directory, larger than ``largest`` bytes, or not
        UTF-8.
    """
    try:
        if Path(path).stat().st_size > largest:
            raise ParframeError(
                kind, str(path), f"larger than {largest} bytes", "give the file itself"
            )
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ParframeError(
            kind, str(path), f"cannot be read ({error.strerror})", "check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ParframeError(kind, str(path), "is not UTF-8 text", "give a JSON file") from error


def parse_json(text: str | bytes, kind: str, allow_nan: bool = True) -> Any:
    """Parse a JSON text.

    Parameters
    ----------
    text
        The text.
    kind
        The kind of the errors.
    allow_nan
        Whether NaN and Infinity, which are not JSON, are accepted.

    Raises
    ------
    ParframeError
        Of this kind, if the text is too long, nested too deep, has a key twice in one object, or
        is not JSON.
    """
    if len(text) > LARGEST:
        raise ParframeError(kind, "JSON", "the text is too long", "load the model again")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except json.JSONDecodeError as error:
        where, what = f"line {error.lineno}", error.msg
        raise ParframeError(kind, where, f"not JSON: {what}", "write the file again") from error
    except _InvalidError as error:
        raise ParframeError(kind, "JSON", f"not JSON: {error}", "write the file again") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deep, or not JSON"
        raise ParframeError(kind, "JSON", what, "write the file again") from error


class _InvalidError(ValueError):
    """A text that Python's parser accepts and that is not legal JSON."""


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise _InvalidError(f"the key {twice[:60]!r} is given twice in one object")
    return value


def _refuse_constant(name: str) -> Any:
    raise _InvalidError(f"{name} is not a number")
