"""Micro-batches: rows of requests that run together step by step, equal on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from parframe.generation.outcomes import Result, Token
from parframe.generation.requests import Request

PREFILL_CHUNK = 512
"""Prompt tokens of one prefill step, so that memory does not grow with the prompt."""


@attrs.frozen
class Step:
    """Input of one step of a model.

    Parameters
    ----------
    tokens, positions, real
        For every row: its tokens, their positions in the text, and whether each is real or padding.
    last
        For every row: index of the token whose logits give the next token; -1 if none does.
    most
        Largest number of real tokens in a row.
    """

    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    real: tuple[tuple[bool, ...], ...]
    last: tuple[int, ...]
    most: int

    @property
    def width(self) -> int:
        """Number of tokens of each row, including padding."""
        return len(self.tokens[0])

    @property
    def samples(self) -> bool:
        """True if any row gets a next token."""
        return any(index >= 0 for index in self.last)


class MicroBatch:
    """Requests in rows, with the tokens drawn so far.

    Parameters
    ----------
    requests
        Request of every row; None for an empty row.
    unit
        Number of which the tokens of a step are a multiple.
    chunk
        Largest number of prompt tokens in a step.
    uncached
        Whether every step computes the whole text again, without a KV cache.
    """

    def __init__(
        self,
        requests: Sequence[Request | None],
        unit: int = 1,
        chunk: int = PREFILL_CHUNK,
        uncached: bool = False,
    ) -> None:
        self.requests = tuple(requests)
        self.unit = unit
        self.chunk = max(unit, chunk // unit * unit)
        self.uncached = uncached
        self.drawn: list[list[int]] = [[] for _ in self.requests]
        self.finish = ["" if request is not None else "empty" for request in self.requests]
        self._prefilled = 0

    @property
    def finished(self) -> bool:
        """True if all rows have ended."""
        return all(self.finish)

    @property
    def in_prefill(self) -> bool:
        """True while prompt tokens remain to be computed."""
        longest = max((len(r.tokens) for r in self.requests if r is not None), default=0)
        return not self.uncached and not any(self.drawn) and self._prefilled < longest

    def next_step(self) -> Step:
        """Return the input of the next step."""
        if self.uncached:
            return self._pad([self._text(row) for row in range(len(self.requests))], 0)
        if any(self.drawn):
            return self._create_decode_step()
        start, self._prefilled = self._prefilled, self._prefilled + self.chunk
        prompts = [request.tokens if request is not None else () for request in self.requests]
        return self._pad([prompt[start : self._prefilled] for prompt in prompts], start)

    def accept(self, tokens: Sequence[int]) -> list[Token]:
        """Append the next token of every row; rows that have ended ignore theirs."""
        accepted = []
        for row, (request, token) in enumerate(zip(self.requests, tokens, strict=True)):
            if request is None or self.finish[row]:
                continue
            accepted.append(Token(request.number, len(self.drawn[row]), int(token)))
            self.drawn[row].append(int(token))
            if token in request.sampling.stop:
                self.finish[row] = "stop"
            elif len(self.drawn[row]) == request.sampling.max_new_tokens:
                self.finish[row] = "length"
        return accepted

    def results(self) -> list[Result]:
        """Return the result of every request."""
        return [
            Result(request.number, tuple(drawn), finish)
            for request, drawn, finish in zip(self.requests, self.drawn, self.finish, strict=True)
            if request is not None
        ]

    def _text(self, row: int) -> tuple[int, ...]:
        request = self.requests[row]
        if request is None or self.finish[row]:
            return ()
        return (*request.tokens, *self.drawn[row])

    def _pad(self, texts: Sequence[tuple[int, ...]], start: int) -> Step:
        """Create a step of text parts that begin at one position; complete texts are sampled."""
        longest = max(map(len, texts))
        width = -(-max(1, longest) // self.unit) * self.unit
        last = [
            len(text) - 1 if text and start + len(text) == len(self._text(row)) else -1
            for row, text in enumerate(texts)
        ]
        return Step(
            tokens=tuple(text + (0,) * (width - len(text)) for text in texts),
            positions=tuple(self._count_positions(start, len(text), width) for text in texts),
            real=tuple(tuple(index < len(text) for index in range(width)) for text in texts),
            last=tuple(last),
            most=longest,
        )

    def _count_positions(self, start: int, length: int, width: int) -> tuple[int, ...]:
        """Return positions from ``start``, including those of the padding.

        Cached attention does not see the padding, so its position only has to be one that the model
        has. Without a cache, the padding must come after all real tokens.
        """
        last = width if self.uncached else max(0, length - 1)
        return tuple(start + min(index, last) for index in range(width))

    def _create_decode_step(self) -> Step:
        """Create a step of one token a row.

        Its index within the row rotates, so that the caches of ranks that share the sequence fill
        evenly.
        """
        tokens, positions, real, last = [], [], [], []
        for request, drawn, finish in zip(self.requests, self.drawn, self.finish, strict=True):
            active = request is not None and not finish
            index = len(drawn) % self.unit if active else -1
            position = len(request.tokens) + len(drawn) - 1 if request is not None and active else 0
            tokens.append(tuple(drawn[-1] if at == index else 0 for at in range(self.unit)))
            positions.append((position,) * self.unit)
            real.append(tuple(at == index for at in range(self.unit)))
            last.append(index)
        return Step(tuple(tokens), tuple(positions), tuple(real), tuple(last), 1)
