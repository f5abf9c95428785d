"""Prompts of the command line, of a file or of standard input, as text or token IDs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean

SAMPLING = ("temperature", "top_k", "top_p", "seed", "max_new_tokens")
"""Sampling parameters that a JSON object may set for its prompt."""

_KEYS = ("prompt", "tokens", *SAMPLING)
_LARGEST = 1 << 30


@attrs.frozen
class Prompt:
    """Prompt as text or, if that is None, as tokens.

    Parameters
    ----------
    text
        Text of the prompt.
    tokens
        Token IDs, including special tokens.
    sampling
        Sampling parameters of this prompt.
    """

    text: str | None
    tokens: tuple[Any, ...] = ()
    sampling: Mapping[str, Any] = attrs.field(factory=dict)


def read_prompts(given: Sequence[str], file: str | None) -> tuple[Prompt, ...]:
    """Read the prompts of the command line, then those of a file.

    Parameters
    ----------
    given
        Prompts of the command line.
    file
        Path of the file, ``-`` for standard input. It has a prompt a line, or a JSON object a line
        if the first line begins with a brace. Empty lines are ignored.

    Raises
    ------
    ParframeError
        Of kind ``usage`` without any prompt, of kind ``input`` if a line cannot be read.
    """
    lines = tuple(_lines(file)) if file is not None else ()
    if not given and not lines:
        raise ParframeError(
            "usage",
            "parframe generate" if file is None else _describe_file(file),
            "no prompt is given" if file is None else "has no prompt",
            "give --prompt TEXT or --prompt-file PATH",
        )
    return (*(Prompt(text) for text in given), *lines)


def _lines(file: str) -> Iterator[Prompt]:
    lines = [
        (number, line) for number, line in enumerate(_read(file).split("\n"), 1) if line.strip()
    ]
    for number, line in lines:
        if lines[0][1].lstrip().startswith("{"):
            yield _parse_line(line, f"{_describe_file(file)}, line {number}")
        else:
            yield Prompt(line.removesuffix("\r"))


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        if Path(file).stat().st_size > _LARGEST:
            raise ParframeError("input", file, f"has over {_LARGEST} bytes", "split the file")
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ParframeError(
            "input", file, f"cannot be read ({error.strerror})", "check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ParframeError(
            "input", _describe_file(file), "is not UTF-8 text", "convert it to UTF-8"
        ) from error


def _parse_line(line: str, where: str) -> Prompt:
    """Parse a line of JSON."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _line_error(where, f"is not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise _line_error(where, "is not an object")
    for key in facts:
        if key not in _KEYS:
            raise _line_error(where, f"{key[:60]!r} is not a key{did_you_mean(key, _KEYS)}")
    if ("prompt" in facts) == ("tokens" in facts):
        raise _line_error(where, "needs either prompt or tokens")
    text, tokens = facts.pop("prompt", None), facts.pop("tokens", None)
    if tokens is None and not isinstance(text, str):
        raise _line_error(where, "its prompt is not a text")
    if tokens is not None and not isinstance(tokens, list):
        raise _line_error(where, "its tokens are not a list")
    if any(type(token) is not int for token in tokens or ()):
        raise _line_error(where, "its tokens are not integers")
    return Prompt(text, tuple(tokens or ()), facts)


def _line_error(where: str, what: str) -> ParframeError:
    return ParframeError(
        "input",
        where,
        what,
        'use an object such as {"prompt": "Once upon"} or {"tokens": [1, 403]}',
    )


def _describe_file(file: str) -> str:
    return "standard input" if file == "-" else file
