"""Rows of requests that go through a model together, step by step: the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from parframe.generation.requests import Request, Result, Token

CHUNK = 512
"""How many tokens of a prompt are computed at once, so that memory does not grow with prompts."""


@attrs.frozen
class Step:
    """What a model computes at once.

    Parameters
    ----------
    tokens, positions, real
        For every row its tokens, where in the text each is, and whether it is one at all.
    last
        For every row the place of the token whose logits say what comes next; -1 if none does.
    most
        How many real tokens the row that has the most of them has.
    """

    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    real: tuple[tuple[bool, ...], ...]
    last: tuple[int, ...]
    most: int

    @property
    def width(self) -> int:
        """How many tokens each row has, filled up."""
        return len(self.tokens[0])

    @property
    def draws(self) -> bool:
        """Whether any row gets a token."""
        return any(place >= 0 for place in self.last)


class Lane:
    """Requests in rows, and how far each has come.

    Parameters
    ----------
    requests
        A request for every row; None where there is none.
    unit
        The tokens of a step are a multiple of this.
    chunk
        How many tokens of prompts go into a step at most.
    whole
        Whether every step begins at the first token again, since nothing is kept.
    """

    def __init__(
        self,
        requests: Sequence[Request | None],
        unit: int = 1,
        chunk: int = CHUNK,
        whole: bool = False,
    ) -> None:
        self.requests = tuple(requests)
        self.unit = unit
        self.chunk = max(unit, chunk // unit * unit)
        self.whole = whole
        self.drawn: list[list[int]] = [[] for _ in self.requests]
        self.finish = ["" if request is not None else "empty" for request in self.requests]
        self._at = 0

    @property
    def finished(self) -> bool:
        """Whether no row goes on."""
        return all(self.finish)

    def step(self) -> Step:
        """What is to be computed next."""
        if self.whole:
            return self._rows([self._text(row) for row in range(len(self.requests))], 0)
        if any(self.drawn):
            return self._decoded()
        start, self._at = self._at, self._at + self.chunk
        prompts = [request.tokens if request is not None else () for request in self.requests]
        return self._rows([prompt[start : self._at] for prompt in prompts], start)

    def accept(self, tokens: Sequence[int]) -> list[Token]:
        """Take what was drawn: a token for every row, any number where none was.

        Returns
        -------
        list of Token
            Those that count.
        """
        found = []
        for row, (request, token) in enumerate(zip(self.requests, tokens, strict=True)):
            if request is None or self.finish[row]:
                continue
            found.append(Token(request.number, len(self.drawn[row]), int(token)))
            self.drawn[row].append(int(token))
            if token in request.sampling.stop:
                self.finish[row] = "stop"
            elif len(self.drawn[row]) == request.sampling.max_new_tokens:
                self.finish[row] = "length"
        return found

    def results(self) -> list[Result]:
        """What came of every request."""
        return [
            Result(request.number, tuple(drawn), finish)
            for request, drawn, finish in zip(self.requests, self.drawn, self.finish, strict=True)
            if request is not None
        ]

    @property
    def prompting(self) -> bool:
        """Whether the prompts have not all been computed yet."""
        longest = max((len(r.tokens) for r in self.requests if r is not None), default=0)
        return not self.whole and not any(self.drawn) and self._at < longest

    def _text(self, row: int) -> tuple[int, ...]:
        request = self.requests[row]
        if request is None or self.finish[row]:
            return ()
        return (*request.tokens, *self.drawn[row])

    def _rows(self, texts: Sequence[tuple[int, ...]], start: int) -> Step:
        """Parts of texts that begin at one position; the last token of a text draws."""
        longest = max(map(len, texts))
        width = -(-max(1, longest) // self.unit) * self.unit
        last = [
            len(text) - 1 if text and start + len(text) == len(self._text(row)) else -1
            for row, text in enumerate(texts)
        ]
        return Step(
            tokens=tuple(text + (0,) * (width - len(text)) for text in texts),
            positions=tuple(self._counted(start, len(text), width) for text in texts),
            real=tuple(tuple(at < len(text) for at in range(width)) for text in texts),
            last=tuple(last),
            most=longest,
        )

    def _counted(self, start: int, length: int, width: int) -> tuple[int, ...]:
        """Positions from ``start`` on, also of what fills a row up.

        What is not kept nobody sees, so it may be at a position that the model has for certain;
        where nothing is kept it must be later than all that is real.
        """
        last = width if self.whole else max(0, length - 1)
        return tuple(start + min(at, last) for at in range(width))

    def _decoded(self) -> Step:
        """One token of every row that goes on; its place moves on, so that all devices fill up."""
        tokens, positions, real, last = [], [], [], []
        for request, drawn, finish in zip(self.requests, self.drawn, self.finish, strict=True):
            here = request is not None and not finish
            at = len(drawn) % self.unit if here else -1
            position = len(request.tokens) + len(drawn) - 1 if request is not None and here else 0
            tokens.append(tuple(drawn[-1] if place == at else 0 for place in range(self.unit)))
            positions.append((position,) * self.unit)
            real.append(tuple(place == at for place in range(self.unit)))
            last.append(at)
        return Step(tuple(tokens), tuple(positions), tuple(real), tuple(last), 1)
