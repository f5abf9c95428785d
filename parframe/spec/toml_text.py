"""Text of a spec: its limits, its parsing, and the places of its keys."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError

MAX_BYTES = 256 * 1024
"""A longer spec is not read."""

MAX_DEPTH = 32
"""Brackets and dotted keys nested deeper than this are not parsed."""

_KEYS = ("parallel", "splits", "shares", "stages", "strategies", "devices")
"""The keys that errors of placing name as their place."""

_TOKEN = re.compile(
    r'''
      (?P<text> """(?:[^\\]|\\.)*?(?:"""|\Z) | \'\'\'.*?(?:\'\'\'|\Z)
              | "(?:[^"\\\n]|\\[^\n])*"?     | '[^'\n]*'? )
    | (?P<comment> \#[^\n]* )
    | (?P<bare> [A-Za-z0-9_-]+ )
    | (?P<mark> [\[\]{}.=,\n] )
    ''',
    re.VERBOSE | re.DOTALL,
)


@attrs.frozen
class Origin:
    """Places of the keys of a spec, for error messages.

    Parameters
    ----------
    name : str
        The path of the spec, or another name for it.
    lines : mapping of str to int
        The line of every key and table, by its dotted path.
    """

    name: str = "spec"
    lines: Mapping[str, int] = attrs.field(factory=dict)

    def where(self, key: str) -> str:
        """Return the place of a key.

        Parameters
        ----------
        key : str
            The dotted path of the key.

        Returns
        -------
        str
            The spec, the line of the key or of what it is part of, and the key.
        """
        part = key
        while part and part not in self.lines:
            part = part.rpartition(".")[0]
        line = f" line {self.lines[part]}" if part else ""
        return f"{self.name}{line}, key {key!r}"

    @contextmanager
    def at(self, key: str) -> Iterator[None]:
        """Add the place of a key to errors that are raised inside.

        Parameters
        ----------
        key : str
            The dotted path of the key.

        Raises
        ------
        ParframeError
            Any that is raised inside, with this place; with the place of the key that the error
            itself names, if it names one.
        """
        try:
            yield
        except ParframeError as error:
            if error.kind not in ("composite", "mesh", "strategy"):
                raise
            if error.where.partition(".")[0] in _KEYS:
                where = self.where(error.where)
            else:
                where = f"{self.where(key)}, {error.where}"
            raise ParframeError(error.kind, where, error.what, error.hint) from error


def read_text(path: Path) -> str:
    """Read the text of a spec from a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    ParframeError
        Of kind `spec`, if it is missing, not a file, too long or not UTF-8.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise _refused(str(path), what, "give the path of a spec, such as specs/quickstart.toml")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _too_long(str(path))
        return content.decode("utf-8")
    except OSError as fault:
        raise _refused(
            str(path), f"cannot be read ({fault.strerror})", "make it readable"
        ) from fault
    except UnicodeDecodeError as fault:
        what = f"byte {fault.start} is not UTF-8"
        raise _refused(str(path), what, "save it as UTF-8 text") from fault


def parse_text(text: str, name: str) -> tuple[dict[str, Any], Origin]:
    """Parse the text of a spec as TOML.

    Parameters
    ----------
    text : str
        The text.
    name : str
        What to call the spec in errors.

    Returns
    -------
    dict of str to object
        The tables of the spec.
    Origin
        Where its keys stand.

    Raises
    ------
    ParframeError
        Of kind `spec`, if the text is too long, nested too deep, empty or not TOML.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _too_long(name)
    origin = Origin(name, _lines(text, name))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        found = re.search(r"\(at line (\d+)", str(fault))
        line = found[1] if found else text.rstrip().count("\n") + 1
        where = f"{name} line {line}"
        raise _refused(where, f"is not TOML ({fault})", "correct it there") from fault
    except ValueError as fault:  # a number of more digits than Python reads
        raise _refused(name, f"has a value that cannot be read ({fault})", "shorten it") from fault
    if not document:
        raise _refused(name, "is empty", 'write at least a strategy, as in parallel = "TP2"')
    return document, origin


def _lines(text: str, name: str) -> dict[str, int]:
    """Find the line of every key and table outside brackets, and refuse deep nesting."""
    lines: dict[str, int] = {}
    table: list[str] = []
    key: list[str] | None = []  # None while a value is passed over
    depth = dots = 0
    header = False
    line, counted = 1, 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", counted, token.start())
        counted = token.start()
        mark = token["mark"]
        if token["text"] or token["bare"]:
            if key is not None:
                key.append(token["bare"] or token["text"].strip("\"'"))
            continue
        dots = dots + 1 if mark == "." else dots if token["comment"] else 0
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)
        if max(depth, dots) > MAX_DEPTH:
            what = f"is nested deeper than {MAX_DEPTH} brackets or dotted keys"
            raise _refused(f"{name} line {line}", what, "flatten it")
        if mark == "[" and key == []:
            header = True
        elif mark == "]" and header and key is not None:
            table, key, header = key, None, False
            _note(lines, table, line)
        elif mark == "=" and key is not None:
            _note(lines, [*table, *key], line)
            key = None
        elif mark == "\n" and depth <= 0:
            key, header, depth = [], False, 0
    return lines


def _note(lines: dict[str, int], path: list[str], line: int) -> None:
    for end in range(1, len(path) + 1):
        lines.setdefault(".".join(path[:end]), line)


def _too_long(where: str) -> ParframeError:
    return _refused(where, f"is longer than {MAX_BYTES // 1024} KiB", "shorten it")


def _refused(where: str, what: str, hint: str) -> ParframeError:
    return ParframeError("spec", where, what, hint)
