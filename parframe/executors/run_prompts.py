"""Completion of prompts of token IDs with all results at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parframe.executors.generate import generate, receives_outcomes
from parframe.generation.outcomes import Failure, Result
from parframe.generation.request_tracker import RequestTracker
from parframe.generation.requests import Request, Sampling
from parframe.generation.settings import Settings
from parframe.plan import Plan


def run(
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    weights: str | Path,
    sampling: Sampling | None = None,
    **settings: Any,
) -> list[Result]:
    """Run a plan in real processes, and complete prompts.

    Parameters
    ----------
    plan
        Plan of a graph that was loaded with positions as an input.
    prompts
        Token IDs of each prompt.
    weights
        Weights folder, or ``"random"``.
    sampling
        Sampling parameters (default: greedy, 128 tokens).
    settings
        Fields of `parframe.generation.Settings`: ``executor``, ``device``, ``dtype``, ``compiled``,
        ``context``, ``batch_size``, ``timeout``, ...

    Returns
    -------
    list of Result
        One result a prompt, in order. With the executors ``torchrun`` and ``host``, ranks other
        than 0 return an empty list.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails.
    """
    tracker = RequestTracker()
    requests = [
        Request(number, tuple(prompt), sampling or Sampling())
        for number, prompt in enumerate(prompts)
    ]
    for request in requests:
        tracker.submit(request)
    folder = None if weights == "random" else Path(weights)
    run_settings = Settings(weights=folder, **settings)
    for event in generate(plan, requests, run_settings):
        if isinstance(event, Failure):
            raise event.error
        if isinstance(event, Result):
            tracker.finish(event)
    if not receives_outcomes(run_settings.executor):
        return []
    return [outcome for outcome in tracker.close() if isinstance(outcome, Result)]
