"""Checks of requests against the limits of a model and its cache."""

from __future__ import annotations

from parframe.errors import ParframeError
from parframe.generation.requests import Request


def check_request(
    request: Request, vocabulary: int, model: int | None = None, cache: int | None = None
) -> None:
    """Check that a request fits a model and its cache.

    Raises
    ------
    ParframeError
        Of kind ``input``, with the numbers and a hint.
    """
    where = f"request {request.number}"
    for index, token in enumerate(request.tokens):
        if not 0 <= token < vocabulary:
            raise ParframeError(
                "input",
                f"{where}, token {index}",
                f"{token} is not a token ID of the model, which has {vocabulary} tokens",
                f"use IDs from 0 to {vocabulary - 1}, of the model's tokenizer",
            )
    _check_length(request, "the model", model, "use a model with more positions")
    _check_length(request, "the cache", cache, "set a longer context (--context, context=)")


def _check_length(request: Request, holder: str, positions: int | None, hint: str) -> None:
    if positions is None or request.positions <= positions:
        return
    length, new = len(request.tokens), request.sampling.max_new_tokens
    where = f"request {request.number}"
    if length > positions:
        raise ParframeError(
            "input",
            where,
            f"the prompt has {length} tokens, {holder} has {positions} positions",
            f"shorten the prompt by {length - positions} tokens, or {hint}",
        )
    raise ParframeError(
        "input",
        where,
        f"{length} prompt tokens and {new} new tokens need {request.positions} positions, "
        f"{holder} has {positions}",
        f"set at most {positions - length + 1} new tokens, or {hint}",
    )
