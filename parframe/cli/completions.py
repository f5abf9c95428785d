"""Completions of prompts, collected from the events of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from parframe.cli.failures import facts_of
from parframe.cli.prompts import Prompt
from parframe.errors import ParframeError
from parframe.generation import Failure, Request, RequestTracker, Result, Token
from parframe.generation.text_stream import TextStream
from parframe.generation.tokenization import ModelTokenizer

Event = Token | Result | Failure


class Completion:
    """Completion of one prompt so far.

    Parameters
    ----------
    prompt, request
        The prompt and its request.
    tokenizer
        The tokenizer; without it, the text consists of token IDs.
    stops
        The stop strings.
    """

    def __init__(
        self,
        prompt: Prompt,
        request: Request,
        tokenizer: ModelTokenizer | None,
        stops: Sequence[str] = (),
    ) -> None:
        self.prompt = prompt
        self.request = request
        self.text = ""
        self.tokens: list[int] = []
        self.outcome: Result | Failure | None = None
        self._stream = (
            TextStream(tokenizer, request.tokens, stops) if tokenizer is not None else None
        )

    @property
    def stopped(self) -> bool:
        """True once a stop string was found; tokens after it are ignored."""
        return self._stream is not None and self._stream.stopped

    def push(self, token: int) -> None:
        """Add a token."""
        self.tokens.append(token)
        if self._stream is None:
            self.text += f"{' ' if self.text else ''}{token}"
        elif token not in self.request.sampling.stop:
            self.text += self._stream.push(token)

    def end(self, outcome: Result | Failure) -> None:
        """End the completion with an outcome."""
        if isinstance(outcome, Result):
            for token in outcome.tokens[len(self.tokens) :]:  # tokens without an event
                if not self.stopped:
                    self.push(token)
        if self._stream is not None:
            self.text += self._stream.finish()
        self.outcome = outcome

    def end_at_stop_string(self) -> Result:
        """End the completion before a stop string, and return its result."""
        result = Result(self.request.number, tuple(self.tokens), "stop")
        self.end(result)
        return result

    @property
    def facts(self) -> dict[str, Any]:
        """The ended completion for JSON."""
        prompt: Any = self.prompt.text if self.prompt.text is not None else self.request.tokens
        facts = {"number": self.request.number, "prompt": prompt}
        if isinstance(self.outcome, Failure):
            return {**facts, "error": facts_of(self.outcome.error)}
        stopped = self.stopped or self.outcome is None
        reason = "stop" if stopped or self.outcome is None else self.outcome.finish_reason
        return {**facts, "text": self.text, "tokens": self.tokens, "finish_reason": reason}


def collect_completions(
    events: Generator[Event, None, None],
    completions: Sequence[Completion],
    on_event: Callable[[], None],
) -> tuple[Failure, ...]:
    """Collect events until every completion has ended, and return the failures.

    The events are closed once all completions have ended, perhaps at stop strings. An error of the
    run ends every completion that has not ended.

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
        for event in _convert_run_errors(events, tracker):
            completion = by_number[event.number]
            if completion.stopped:
                continue
            if isinstance(event, Token):
                completion.push(event.token)
            else:
                tracker.finish(event)
                completion.end(event)
            if completion.stopped and completion.outcome is None:
                tracker.finish(completion.end_at_stop_string())
            on_event()
            if not tracker.pending:
                break
    return tuple(outcome for outcome in tracker.close() if isinstance(outcome, Failure))


def _convert_run_errors(events: Iterable[Event], tracker: RequestTracker) -> Iterator[Event]:
    """Yield events, and a failure of every pending request if the run fails."""
    try:
        yield from events
    except ParframeError as error:
        if not tracker.pending:
            raise
        yield from (Failure(number, error) for number in tracker.pending)
