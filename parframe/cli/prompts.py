"""Prompts of the command line, of a file or of standard input: text or token ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean

SAMPLING = ("temperature", "top_k", "top_p", "seed", "max_new_tokens")
"""What a line of JSON may say of its prompt's sampling."""

_KEYS = ("prompt", "tokens", *SAMPLING)
_LARGEST = 1 << 30


@attrs.frozen
class Prompt:
    """A prompt: its text or, where that is None, its tokens.

    Parameters
    ----------
    text
        The text.
    tokens
        The token ids, special ones included.
    sampling
        What is said of its sampling alone.
    """

    text: str | None
    tokens: tuple[Any, ...] = ()
    sampling: Mapping[str, Any] = attrs.field(factory=dict)


def read_prompts(given: Sequence[str], file: str | None) -> tuple[Prompt, ...]:
    """The prompts of the command line, then those of a file.

    Parameters
    ----------
    given
        Those of the command line.
    file
        The file, ``-`` for standard input: a prompt a line, or where the first line begins with a
        brace an object of JSON a line. Empty lines do not count.

    Raises
    ------
    ParframeError
        Of kind ``usage`` if there are none, of kind ``input`` if a line cannot be read.
    """
    lines = tuple(_lines(file)) if file is not None else ()
    if not given and not lines:
        raise ParframeError(
            "usage",
            "parframe generate" if file is None else _named(file),
            "no prompt is given" if file is None else "has no prompt",
            "give --prompt TEXT or --prompt-file FILE",
        )
    return (*(Prompt(text) for text in given), *lines)


def _lines(file: str) -> Iterator[Prompt]:
    lines = [(place, line) for place, line in enumerate(_read(file).split("\n"), 1) if line.strip()]
    for place, line in lines:
        if lines[0][1].lstrip().startswith("{"):
            yield _parsed(line, f"{_named(file)}, line {place}")
        else:
            yield Prompt(line.removesuffix("\r"))


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        if Path(file).stat().st_size > _LARGEST:
            raise ParframeError("input", file, f"has over {_LARGEST} bytes", "split it")
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ParframeError(
            "input", file, f"cannot be read ({error.strerror})", "check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ParframeError("input", _named(file), "is not UTF-8 text", "convert it") from error


def _parsed(line: str, where: str) -> Prompt:
    """The prompt of a line of JSON."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad(where, f"is not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise _bad(where, "is not an object")
    for key in facts:
        if key not in _KEYS:
            raise _bad(where, f"{key[:60]!r} is not a key{did_you_mean(key, _KEYS)}")
    if ("prompt" in facts) == ("tokens" in facts):
        raise _bad(where, "needs either prompt or tokens")
    text, tokens = facts.pop("prompt", None), facts.pop("tokens", None)
    if tokens is None and not isinstance(text, str):
        raise _bad(where, "its prompt is not a text")
    if tokens is not None and not isinstance(tokens, list):
        raise _bad(where, "its tokens are not a list")
    if any(type(token) is not int for token in tokens or ()):
        raise _bad(where, "its tokens are not whole numbers")
    return Prompt(text, tuple(tokens or ()), facts)


def _bad(where: str, what: str) -> ParframeError:
    return ParframeError(
        "input", where, what, 'write such as {"prompt": "Once upon"} or {"tokens": [1, 403]}'
    )


def _named(file: str) -> str:
    return "standard input" if file == "-" else file
