"""What is asked of a model and what comes of it, as data that is checked and goes as JSON."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.errors import ParframeError

FINISHES: Mapping[str, str] = {
    "stop": "a stop token was drawn; it is the last of the tokens",
    "length": "as many tokens were drawn as were asked for",
}
"""Every way in which a request ends well, and what it means."""

_SEEDS = 1 << 64


def _whole(value: Any, where: str, least: int) -> int:
    """A whole number that is large enough."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ParframeError(
            "input", where, f"{value!r} is not a whole number from {least} on", "correct the number"
        )
    return number


def _ids(values: Iterable[Any]) -> tuple[int, ...]:
    """Token ids as plain numbers, from a list, an array or a tensor."""
    try:
        return tuple(map(operator.index, values))
    except TypeError as error:
        raise ParframeError(
            "input", "token ids", "are not whole numbers", "give them as a tokenizer does"
        ) from error


@attrs.frozen
class Sampling:
    """How the tokens of a request are chosen, and when it ends.

    Parameters
    ----------
    temperature
        What logits are divided by before a token is drawn; at 0 the most likely token is taken.
    top_k
        How many of the most likely tokens may be drawn; None for all.
    top_p
        The probability that the most likely tokens which may be drawn have together; None for all.
    seed
        Which of all draws is made.
    max_new_tokens
        How many tokens are drawn at most.
    stop
        The tokens after which the request ends; with none it ends by its length alone.

    Raises
    ------
    ParframeError
        Of kind ``input``, if a value is not one of these.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_new_tokens: int = 128
    stop: tuple[int, ...] = attrs.field(default=(), converter=_ids)

    def __attrs_post_init__(self) -> None:
        if not _real(self.temperature) or self.temperature < 0:
            raise _bad("temperature", self.temperature, "0 for the most likely token, or above")
        if self.top_k is not None:
            _whole(self.top_k, "top_k", 1)
        if self.top_p is not None and not (_real(self.top_p) and 0 < self.top_p <= 1):
            raise _bad("top_p", self.top_p, "a number above 0 and at most 1")
        if _whole(self.seed, "seed", 0) >= _SEEDS:
            raise _bad("seed", self.seed, "a number below 2**64")
        _whole(self.max_new_tokens, "max_new_tokens", 1)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken each time."""
        return self.temperature == 0


@attrs.frozen
class Request:
    """A prompt to go on from.

    Parameters
    ----------
    number
        Which request it is: no two that run together have the same.
    tokens
        The prompt, with special tokens.
    sampling
        How it goes on.

    Raises
    ------
    ParframeError
        Of kind ``input``, if the prompt is empty or holds something else than token ids.
    """

    number: int
    tokens: tuple[int, ...] = attrs.field(converter=_ids)
    sampling: Sampling = attrs.field(factory=Sampling)

    def __attrs_post_init__(self) -> None:
        _whole(self.number, "a request's number", 0)
        if not self.tokens:
            raise ParframeError(
                "input",
                f"request {self.number}",
                "the prompt is empty",
                "give at least one token, such as the one that begins a text",
            )

    @property
    def positions(self) -> int:
        """How many positions of the cache it needs: the last token drawn is not computed on."""
        return len(self.tokens) + self.sampling.max_new_tokens - 1

    @property
    def load(self) -> int:
        """How much work it is at most, in tokens."""
        return len(self.tokens) + self.sampling.max_new_tokens


@attrs.frozen
class Token:
    """A token as it is drawn: the ``step``-th (from 0) of the request of this number."""

    number: int
    step: int
    token: int


@attrs.frozen
class Result:
    """What came of a request.

    Parameters
    ----------
    number
        The request's.
    tokens
        All that were drawn, a stop token among them.
    finish
        Why it ended: one of `FINISHES`.
    """

    number: int
    tokens: tuple[int, ...] = attrs.field(converter=_ids)
    finish: str = attrs.field()

    def __attrs_post_init__(self) -> None:
        if self.finish not in FINISHES:
            raise ParframeError(
                "internal",
                f"request {self.number}",
                f"{self.finish!r} is no way to end",
                f"use one of {', '.join(FINISHES)}",
            )

    @property
    def content(self) -> tuple[int, ...]:
        """The tokens of its text: all but the stop token."""
        return self.tokens[:-1] if self.finish == "stop" else self.tokens


@attrs.frozen
class Failure:
    """The error with which a request ended."""

    number: int
    error: ParframeError


def check_request(
    request: Request, vocabulary: int, model: int | None = None, cache: int | None = None
) -> None:
    """Refuse a request that a model or its cache cannot hold.

    Parameters
    ----------
    request
        The request.
    vocabulary
        How many tokens the model knows.
    model
        How many positions the model was made for; None if there is no such limit.
    cache
        How many positions the cache has for each request; None if it will be long enough.

    Raises
    ------
    ParframeError
        Of kind ``input``, with the numbers and the way out.
    """
    where = f"request {request.number}"
    for place, token in enumerate(request.tokens):
        if not 0 <= token < vocabulary:
            raise ParframeError(
                "input",
                f"{where}, token {place}",
                f"{token} is not a token of the model, which has {vocabulary}",
                f"give ids from 0 to {vocabulary - 1}, of the model's own tokenizer",
            )
    _check_length(request, "the model", model, "use a model for longer texts")
    _check_length(request, "the cache", cache, "give the cache a longer context")


def _check_length(request: Request, holder: str, holds: int | None, hint: str) -> None:
    if holds is None or request.positions <= holds:
        return
    length, new = len(request.tokens), request.sampling.max_new_tokens
    where = f"request {request.number}"
    if length > holds:
        raise ParframeError(
            "input",
            where,
            f"the prompt has {length} tokens, {holder} holds {holds}",
            f"shorten the prompt by {length - holds} tokens, or {hint}",
        )
    raise ParframeError(
        "input",
        where,
        f"a prompt of {length} tokens and {new} new ones need {request.positions} positions, "
        f"{holder} holds {holds}",
        f"ask for at most {holds - length + 1} new tokens, or {hint}",
    )


def facts_of(thing: Request | Result | Token | Failure) -> dict[str, Any]:
    """A request, or what came of it, for JSON."""
    if isinstance(thing, Failure):
        error = thing.error
        told = {"kind": error.kind, "where": error.where, "what": error.what, "hint": error.hint}
        return {"number": thing.number, "error": told}
    return attrs.asdict(thing)


def request_of(facts: Mapping[str, Any]) -> Request:
    """The request that `facts_of` gave.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it gave no such thing.
    """
    try:
        sampling = Sampling(**facts["sampling"])
        return Request(**{**facts, "sampling": sampling})
    except (TypeError, KeyError) as error:
        raise _unread("a request", error) from error


def outcome_of(facts: Mapping[str, Any]) -> Token | Result | Failure:
    """The token, the result or the failure that `facts_of` gave.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it gave no such thing.
    """
    try:
        if "error" in facts:
            return Failure(facts["number"], ParframeError(**facts["error"]))
        return Token(**facts) if "token" in facts else Result(**facts)
    except (TypeError, KeyError, ValueError) as error:
        raise _unread("what comes of a request", error) from error


def _real(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _bad(name: str, value: Any, wanted: str) -> ParframeError:
    return ParframeError("input", name, f"{value!r} cannot be sampled with", f"give {wanted}")


def _unread(what: str, error: Exception) -> ParframeError:
    return ParframeError(
        "input", what, f"its JSON does not fit ({error})", "write it with this version of parframe"
    )
