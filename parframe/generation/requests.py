"""Requests: prompts with sampling parameters, validated on creation."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import attrs

from parframe.errors import ParframeError

_SEEDS = 1 << 64


def _check_integer(value: Any, where: str, least: int) -> int:
    """Return a value as an integer, after checking its type and its minimum."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ParframeError(
            "input", where, f"{value!r} is not an integer of at least {least}", "use such a number"
        )
    return number


def token_ids(values: Iterable[Any]) -> tuple[int, ...]:
    """Return token IDs as a tuple of integers, from a list, an array or a tensor."""
    try:
        return tuple(map(operator.index, values))
    except TypeError as error:
        raise ParframeError(
            "input", "token IDs", "are not integers", "use the integers of a tokenizer"
        ) from error


@attrs.frozen
class Sampling:
    """Sampling parameters of a request, and its stop conditions.

    Parameters
    ----------
    temperature
        Divisor of the logits; 0 takes the most likely token.
    top_k
        Number of most likely tokens to draw from; None for all.
    top_p
        Total probability of the most likely tokens to draw from; None for all.
    seed
        Seed of the draws.
    max_new_tokens
        Largest number of new tokens.
    stop
        Token IDs that end the request; without any, only the number of tokens ends it.

    Raises
    ------
    ParframeError
        Of kind ``input``, if a value is out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_new_tokens: int = 128
    stop: tuple[int, ...] = attrs.field(default=(), converter=token_ids)

    def __attrs_post_init__(self) -> None:
        if not _is_finite(self.temperature) or self.temperature < 0:
            raise _parameter_error(
                "temperature", self.temperature, "0 for the most likely token, or more"
            )
        if self.top_k is not None:
            _check_integer(self.top_k, "top_k", 1)
        if self.top_p is not None and not (_is_finite(self.top_p) and 0 < self.top_p <= 1):
            raise _parameter_error("top_p", self.top_p, "a number above 0 and at most 1")
        if _check_integer(self.seed, "seed", 0) >= _SEEDS:
            raise _parameter_error("seed", self.seed, "a number below 2**64")
        _check_integer(self.max_new_tokens, "max_new_tokens", 1)

    @property
    def greedy(self) -> bool:
        """True if the most likely token is taken each time."""
        return self.temperature == 0


@attrs.frozen
class Request:
    """Prompt with its sampling parameters.

    Parameters
    ----------
    number
        Number of the request, unique among those that run together.
    tokens
        Token IDs of the prompt, including special tokens.
    sampling
        Sampling parameters.

    Raises
    ------
    ParframeError
        Of kind ``input``, if the prompt is empty or has other values than token IDs.
    """

    number: int
    tokens: tuple[int, ...] = attrs.field(converter=token_ids)
    sampling: Sampling = attrs.field(factory=Sampling)

    def __attrs_post_init__(self) -> None:
        _check_integer(self.number, "a request's number", 0)
        if not self.tokens:
            raise ParframeError(
                "input",
                f"request {self.number}",
                "the prompt is empty",
                "give at least one token, such as the beginning-of-text token",
            )

    @property
    def positions(self) -> int:
        """Number of cache positions that the request needs; the last new token needs none."""
        return len(self.tokens) + self.sampling.max_new_tokens - 1

    @property
    def load(self) -> int:
        """Largest amount of work, in tokens."""
        return len(self.tokens) + self.sampling.max_new_tokens


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _parameter_error(name: str, value: Any, wanted: str) -> ParframeError:
    return ParframeError("input", name, f"{value!r} is out of range", f"use {wanted}")
