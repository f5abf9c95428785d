"""Outcomes of requests: tokens as they are drawn, results and failures."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.errors import ParframeError
from parframe.generation.requests import token_ids

FINISH_REASONS: Mapping[str, str] = {
    "stop": "a stop token was drawn, and is the last of the tokens",
    "length": "the largest number of new tokens was reached",
}
"""Finish reasons of a request, with their meaning."""


@attrs.frozen
class Token:
    """Token that was drawn at ``step`` (from 0) of the request ``number``."""

    number: int
    step: int
    token: int


@attrs.frozen
class Result:
    """Result of a request.

    Parameters
    ----------
    number
        Number of the request.
    tokens
        All tokens that were drawn, including a stop token.
    finish_reason
        One of `FINISH_REASONS`.
    """

    number: int
    tokens: tuple[int, ...] = attrs.field(converter=token_ids)
    finish_reason: str = attrs.field()

    def __attrs_post_init__(self) -> None:
        if self.finish_reason not in FINISH_REASONS:
            raise ParframeError(
                "internal",
                f"request {self.number}",
                f"{self.finish_reason!r} is not a finish reason",
                f"use one of {', '.join(FINISH_REASONS)}",
            )


@attrs.frozen
class Failure:
    """Error with which a request ended."""

    number: int
    error: ParframeError
