"""What comes of prompts, as it comes: text or lines of JSON, in the order of the prompts."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

from parframe.cli.answer import dump
from parframe.cli.failures import facts_of
from parframe.cli.prompts import Prompt
from parframe.errors import ParframeError
from parframe.generation import Failure, Request, RequestTracker, Result, Token
from parframe.generation.text_stream import TextStream
from parframe.generation.tokenization import ModelTokenizer

Event = Token | Result | Failure


class Completion:
    """What came of one prompt so far.

    Parameters
    ----------
    prompt, request
        The prompt, and the request that it became.
    text
        The tokenizer; without it, tokens are shown by their ids.
    stops
        The texts before which it ends.
    """

    def __init__(
        self,
        prompt: Prompt,
        request: Request,
        text: ModelTokenizer | None,
        stops: Sequence[str] = (),
    ) -> None:
        self.prompt = prompt
        self.request = request
        self.text = ""
        self.tokens: list[int] = []
        self.outcome: Result | Failure | None = None
        self._stream = TextStream(text, request.tokens, stops) if text is not None else None

    @property
    def stopped(self) -> bool:
        """Whether it ended before a stop text: what is drawn yet does not count."""
        return self._stream is not None and self._stream.stopped

    def push(self, token: int) -> None:
        """Take a token."""
        self.tokens.append(token)
        if self._stream is None:
            self.text += f"{' ' if self.text else ''}{token}"
        elif token not in self.request.sampling.stop:
            self.text += self._stream.push(token)

    def end(self, outcome: Result | Failure) -> None:
        """Take what came of it."""
        if isinstance(outcome, Result):
            for token in outcome.tokens[
                len(self.tokens) :
            ]:  # of those that were not told one by one
                if not self.stopped:
                    self.push(token)
        if self._stream is not None:
            self.text += self._stream.finish()
        self.outcome = outcome

    def cut(self) -> Result:
        """End before a stop text."""
        result = Result(self.request.number, tuple(self.tokens), "stop")
        self.end(result)
        return result

    @property
    def facts(self) -> dict[str, Any]:
        """It for JSON, once it has ended."""
        given: Any = self.prompt.text if self.prompt.text is not None else self.request.tokens
        facts = {"number": self.request.number, "prompt": given}
        if isinstance(self.outcome, Failure):
            return {**facts, "error": facts_of(self.outcome.error)}
        finish_reason = (
            "stop" if self.stopped or self.outcome is None else self.outcome.finish_reason
        )
        return {**facts, "text": self.text, "tokens": self.tokens, "finish_reason": finish_reason}


def follow(
    events: Generator[Event, None, None],
    completions: Sequence[Completion],
    show: Callable[[], None],
) -> tuple[Failure, ...]:
    """Take events until every completion has ended, and show each; the failures among them.

    Once all have ended, at stop texts perhaps, the events are closed. An error of the run is that
    of every completion that was still open.

    Raises
    ------
    ParframeError
        Of kind ``run`` or ``internal``, if a completion does not end or ends twice.
    """
    tracker = RequestTracker()
    by_number = {completion.request.number: completion for completion in completions}
    for completion in completions:
        tracker.submit(completion.request)
    with closing(events):
        for event in _with_failures(events, tracker):
            completion = by_number[event.number]
            if completion.stopped:
                continue
            if isinstance(event, Token):
                completion.push(event.token)
            else:
                tracker.finish(event)
                completion.end(event)
            if completion.stopped and completion.outcome is None:
                tracker.finish(completion.cut())
            show()
            if not tracker.pending:
                break
    return tuple(outcome for outcome in tracker.close() if isinstance(outcome, Failure))


def _with_failures(events: Iterable[Event], tracker: RequestTracker) -> Iterator[Event]:
    """Events, and where they end in an error a failure of every request that is open."""
    try:
        yield from events
    except ParframeError as error:
        if not tracker.pending:
            raise
        yield from (Failure(number, error) for number in tracker.pending)


class Output(Protocol):
    """Where completions are printed."""

    def write(self, text: str, /) -> int:
        """Write."""

    def flush(self) -> None:
        """Let all be seen that was written."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


class Printer:
    """Prints completions in their order, each with a newline at its end.

    Parameters
    ----------
    completions
        The completions, in order.
    out
        Where to; a terminal gets no characters that could steer it.
    streaming
        Whether text is printed as it comes, or when its completion has ended.
    """

    def __init__(self, completions: Sequence[Completion], out: Output, streaming: bool) -> None:
        self._left = list(completions)
        self._out = out
        self._streaming = streaming
        self._printed = 0

    @property
    def resting(self) -> bool:
        """Whether completions are still to come, and nothing of the next is printed yet."""
        return bool(self._left) and not self._printed

    def __call__(self) -> None:
        """Print what has come since."""
        while self._left:
            first = self._left[0]
            ended = first.outcome is not None
            if ended or self._streaming:
                self._write(first.text[self._printed :])
                self._printed = len(first.text)
            if not ended:
                break
            if self._printed or not isinstance(first.outcome, Failure):
                self._write("\n")
            self._left.pop(0)
            self._printed = 0
        self._out.flush()

    def _write(self, text: str) -> None:
        self._out.write(harmless(text) if self._out.isatty() else text)


class Liner:
    """Prints completions in their order as lines of JSON, each when it and those before have ended.

    Parameters
    ----------
    completions
        The completions, in order.
    out
        Where to.
    """

    def __init__(self, completions: Sequence[Completion], out: Output) -> None:
        self._left = list(completions)
        self._out = out

    @property
    def resting(self) -> bool:
        """Whether completions are still to come."""
        return bool(self._left)

    def __call__(self) -> None:
        """Print what has ended since."""
        while self._left and self._left[0].outcome is not None:
            self._out.write(dump(self._left.pop(0).facts) + "\n")
        self._out.flush()


def harmless(text: str) -> str:
    """Text without characters that could steer a terminal.

    Examples
    --------
    >>> harmless(chr(27) + "[31m")
    '?[31m'
    """
    return "".join("?" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
