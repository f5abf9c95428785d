"""Printers of completions: text or JSON lines, in the order of the prompts."""

from __future__ import annotations

from collections.abc import Sequence

from parframe.cli.answer import dump
from parframe.cli.completions import Completion
from parframe.cli.output_stream import OutputStream, replace_control_characters
from parframe.generation import Failure


class TextPrinter:
    """Printer of completions as text, each followed by a newline.

    Parameters
    ----------
    completions
        The completions, in order.
    out
        Stream to print to; control characters are replaced on a terminal.
    streaming
        Whether to print text as soon as it is final, or when its completion has ended.
    """

    def __init__(
        self, completions: Sequence[Completion], out: OutputStream, streaming: bool
    ) -> None:
        self._remaining = list(completions)
        self._out = out
        self._streaming = streaming
        self._printed = 0

    @property
    def between_completions(self) -> bool:
        """True if completions remain and no text of the next one is printed yet."""
        return bool(self._remaining) and not self._printed

    def __call__(self) -> None:
        """Print the new text."""
        while self._remaining:
            first = self._remaining[0]
            ended = first.outcome is not None
            if ended or self._streaming:
                self._write(first.text[self._printed :])
                self._printed = len(first.text)
            if not ended:
                break
            if self._printed or not isinstance(first.outcome, Failure):
                self._write("\n")
            self._remaining.pop(0)
            self._printed = 0
        self._out.flush()

    def _write(self, text: str) -> None:
        self._out.write(replace_control_characters(text) if self._out.isatty() else text)


class JSONLinesPrinter:
    """Printer of completions as JSON lines, each once it and those before it have ended."""

    def __init__(self, completions: Sequence[Completion], out: OutputStream) -> None:
        self._remaining = list(completions)
        self._out = out

    @property
    def between_completions(self) -> bool:
        """True if completions remain."""
        return bool(self._remaining)

    def __call__(self) -> None:
        """Print the completions that have ended."""
        while self._remaining and self._remaining[0].outcome is not None:
            self._out.write(dump(self._remaining.pop(0).facts) + "\n")
        self._out.flush()
