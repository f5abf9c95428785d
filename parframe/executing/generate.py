"""Complete requests with a plan, by an executor of some name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from parframe.errors import ParframeError, did_you_mean
from parframe.executing import local
from parframe.generating.requests import Failure, Request, Result, Token
from parframe.generating.settings import Settings
from parframe.plan import Plan

Executor = Callable[[Plan, Sequence[Request], Settings], Iterator[Token | Result | Failure]]
"""Completes requests: tokens as they are drawn, and one result or failure for each request."""

EXECUTORS: Mapping[str, Executor] = {"local": local.generate}
"""The executors of parframe's own, by name."""


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests.

    Parameters
    ----------
    plan
        The plan, of a graph that was loaded with positions as an input.
    requests
        What is to be completed.
    settings
        How the plan is run.

    Yields
    ------
    Token, Result or Failure
        Tokens as they are drawn, and exactly one result or failure for every request, in any
        order across requests. Closing the iterator ends the run.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails.
    """
    executor = EXECUTORS.get(settings.executor)
    if executor is None:
        raise ParframeError(
            "run",
            f"executor {settings.executor!r}",
            f"there is none of this name{did_you_mean(settings.executor, EXECUTORS)}",
            f"use one of {', '.join(EXECUTORS)}",
        )
    if not requests:
        return
    yield from executor(plan, requests, settings)
