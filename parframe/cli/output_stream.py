"""Output streams of commands, and text that is safe for terminals."""

from __future__ import annotations

import unicodedata
from typing import Protocol


class OutputStream(Protocol):
    """Stream that completions are printed to."""

    def write(self, text: str, /) -> int:
        """Write text."""

    def flush(self) -> None:
        """Flush the written text."""

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""


def replace_control_characters(text: str) -> str:
    """Replace the characters that can control a terminal.

    Examples
    --------
    >>> replace_control_characters(chr(27) + "[31m")
    '?[31m'
    """
    return "".join("?" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
