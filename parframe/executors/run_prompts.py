"""Complete prompts of token ids, and give back all at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parframe.executors.generate import generate, hears
from parframe.generation.requests import Failure, Request, Result, Sampling
from parframe.generation.scheduler import Ledger
from parframe.generation.settings import Settings
from parframe.plan import Plan


def run(
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    weights: str | Path,
    sampling: Sampling | None = None,
    **settings: Any,
) -> list[Result]:
    """Run a plan for real, and complete prompts.

    Parameters
    ----------
    plan
        The plan, of a graph that was loaded with positions as an input.
    prompts
        Token ids.
    weights
        The folder of the weights, or ``"random"``.
    sampling
        How tokens are chosen and when a text ends; greedily, 128 tokens, if None.
    settings
        Fields of `parframe.generation.Settings`: ``executor``, ``device``, ``dtype``, ``compiled``,
        ``context``, ``rows``, ``timeout``, ...

    Returns
    -------
    list of Result
        One for every prompt, in order; none on ranks other than 0 of a world of others' making.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails.
    """
    ledger = Ledger()
    requests = [
        Request(number, tuple(prompt), sampling or Sampling())
        for number, prompt in enumerate(prompts)
    ]
    for request in requests:
        ledger.submit(request)
    folder = None if weights == "random" else Path(weights)
    given = Settings(weights=folder, **settings)
    for event in generate(plan, requests, given):
        if isinstance(event, Failure):
            raise event.error
        if isinstance(event, Result):
            ledger.settle(event)
    if not hears(given.executor):
        return []
    return [outcome for outcome in ledger.close() if isinstance(outcome, Result)]
