"""Requests and their outcomes as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.requests import Request, Sampling


def to_json(value: Request | Result | Token | Failure) -> dict[str, Any]:
    """Convert a request or an outcome to a JSON object."""
    if isinstance(value, Failure):
        error = value.error
        fields = {"kind": error.kind, "where": error.where, "what": error.what, "hint": error.hint}
        return {"number": value.number, "error": fields}
    return attrs.asdict(value)


def parse_request(facts: Mapping[str, Any]) -> Request:
    """Parse the JSON object of a request.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it is not one.
    """
    try:
        sampling = Sampling(**facts["sampling"])
        return Request(**{**facts, "sampling": sampling})
    except (TypeError, KeyError) as error:
        raise _format_error("a request", error) from error


def parse_outcome(facts: Mapping[str, Any]) -> Token | Result | Failure:
    """Parse the JSON object of a token, a result or a failure.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it is not one.
    """
    try:
        if "error" in facts:
            return Failure(facts["number"], ParframeError(**facts["error"]))
        return Token(**facts) if "token" in facts else Result(**facts)
    except (TypeError, KeyError, ValueError) as error:
        raise _format_error("an outcome", error) from error


def _format_error(what: str, error: Exception) -> ParframeError:
    return ParframeError(
        "input", what, f"has unexpected JSON ({error})", "write it with this version of parframe"
    )
