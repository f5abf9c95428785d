"""Completion of requests with a plan, by a named executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from parframe import hooks
from parframe.errors import ParframeError, did_you_mean
from parframe.executors import host, local, simulate, torchrun
from parframe.executors.devices import check_device
from parframe.generation.model_limits import find_model_limits
from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.request_checks import check_request
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan
from parframe.runtime.generation_support import check_cache_support, check_causal
from parframe.simulation.dtypes import find_float_dtype, parse_dtype
from parframe.weights import open_weights
from parframe.weights.rank_files import check_rank_folder, is_rank_folder

Executor = Callable[[Plan, Sequence[Request], Settings], Iterator[Token | Result | Failure]]
"""Function that completes requests: it yields tokens, and one result or failure a request."""

EXECUTORS: Mapping[str, Executor] = {
    "local": local.generate,
    "torchrun": torchrun.generate,
    "host": host.generate,
    "simulate": simulate.generate,
}
"""Built-in executors by name; plugins add others."""

_CACHED_EXECUTORS = ("local", "torchrun", "host")
"""Executors that run rank modules, which have a KV cache unless the settings say otherwise."""

_RECEIVES_OUTCOMES: Mapping[str, Callable[[], bool]] = {
    "torchrun": torchrun.receives_outcomes,
    "host": host.receives_outcomes,
}
"""Executors whose ranks all run the same program, and the check for the rank with outcomes."""


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests.

    Parameters
    ----------
    plan
        Plan of a graph that was loaded with positions as an input.
    requests
        Requests to complete.
    settings
        Settings of the run.

    Yields
    ------
    Token, Result or Failure
        Tokens as they are drawn, and exactly one result or failure a request, in any order across
        requests; nothing on ranks that do not receive outcomes. Closing the iterator ends the run.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails. Errors that can be known before are raised before any
        process is started.
    """
    executor = find_executor(settings.executor)
    if not requests:
        return
    check_run(plan, requests, settings)
    yield from executor(plan, requests, settings)


def check_run(plan: Plan, requests: Sequence[Request], settings: Settings) -> None:
    """Check a run before any process is started.

    Raises
    ------
    ParframeError
        Of kind ``input`` for a request that does not fit the model or its cache, of kind ``run``
        for a missing device or a model that cannot run this way, of kind ``weights`` for weights of
        another model or plan.
    """
    limits = find_model_limits(plan.graph)
    for request in requests:
        check_request(request, limits.vocabulary, limits.positions, settings.context)
    _check_dtype(plan, settings.dtype)
    here = plan.mesh.size if settings.executor == "local" else 1
    check_device(settings.device, "this node", here, settings.share_gpus)
    _check_model(plan, settings)
    if settings.weights is None:
        return
    if is_rank_folder(settings.weights):
        check_rank_folder(plan, settings.weights)
    else:
        open_weights(plan.graph, settings.weights, settings.pickled, settings.extra)  # not read


def _check_dtype(plan: Plan, name: str | None) -> None:
    """Check that the dtype is not narrower than that of the model's graph."""
    asked, own = parse_dtype(name), parse_dtype(find_float_dtype(plan.graph))
    if asked is not None and own is not None and torch.promote_types(own, asked) != asked:
        raise ParframeError(
            "run",
            f"dtype {name}",
            f"is narrower than {find_float_dtype(plan.graph)}, the dtype of the model's graph",
            f'load the model with dtype="{name}", or pass the model instead of its plan',
        )


def _check_model(plan: Plan, settings: Settings) -> None:
    """Check that the model generates text in this way."""
    if settings.cached and settings.executor in _CACHED_EXECUTORS:
        check_cache_support(plan)
    else:
        check_causal(plan)


def receives_outcomes(executor: str) -> bool:
    """Return whether this process receives the outcomes of requests."""
    return _RECEIVES_OUTCOMES.get(executor, lambda: True)()


def find_executor(name: str) -> Executor:
    """Find a built-in executor or one of a plugin.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the name is unknown; of kind ``plugin``, if its plugin fails.
    """
    found: Executor | None = hooks.executor(name)
    found = EXECUTORS.get(name, found)
    if found is None:
        known = (*EXECUTORS, *hooks.claimed_executors())
        raise ParframeError(
            "run",
            f"executor {name!r}",
            f"unknown name{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )
    return found
