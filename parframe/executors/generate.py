"""Complete requests with a plan, by an executor of some name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from parframe import hooks
from parframe.errors import ParframeError, did_you_mean
from parframe.executors import host, local, simulate, torchrun
from parframe.executors.rank import check_device
from parframe.generation.model_limits import limits_of
from parframe.generation.requests import Failure, Request, Result, Token, check_request
from parframe.generation.settings import Settings
from parframe.plan import Plan
from parframe.runtime.generation_support import check_cache_support, check_causal
from parframe.simulation.dtypes import find_float_dtype, parse_dtype
from parframe.weights import open_weights
from parframe.weights.rank_files import check_rank_folder, is_rank_folder

Executor = Callable[[Plan, Sequence[Request], Settings], Iterator[Token | Result | Failure]]
"""Completes requests: tokens as they are drawn, and one result or failure for each request."""

EXECUTORS: Mapping[str, Executor] = {
    "local": local.generate,
    "torchrun": torchrun.generate,
    "host": host.generate,
    "simulate": simulate.generate,
}
"""The executors of parframe's own, by name; plugins bring others."""

_KEEPING = ("local", "torchrun", "host")
"""Those that run a device's module, with a cache unless told otherwise."""

_HEARS: Mapping[str, Callable[[], bool]] = {"torchrun": torchrun.hears, "host": host.hears}
"""Where every rank runs the same program, only one of them is told what comes of requests."""


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
        order across requests; nothing on ranks that do not hear it. Closing the iterator ends
        the run.

    Raises
    ------
    ParframeError
        If the run cannot begin, which is told before any process is started where it can be known,
        or fails.
    """
    executor = executor_of(settings.executor)
    if not requests:
        return
    checked(plan, requests, settings)
    yield from executor(plan, requests, settings)


def checked(plan: Plan, requests: Sequence[Request], settings: Settings) -> None:
    """Refuse what cannot end well, before any process is started.

    Parameters
    ----------
    plan
        The plan.
    requests
        What is to be completed.
    settings
        How the plan is run.

    Raises
    ------
    ParframeError
        Of kind ``input`` for a request that the model or its cache cannot hold, of kind ``run``
        for a device that is not there or a model that cannot be run so, of kind ``weights`` for
        those of another model or plan.
    """
    limits = limits_of(plan.graph)
    for request in requests:
        check_request(request, limits.vocabulary, limits.positions, settings.context)
    _check_dtype(plan, settings.dtype)
    here = plan.mesh.size if settings.executor == "local" else 1
    check_device(settings.device, "this host", here, settings.shared)
    _check_suited(plan, settings)
    if settings.weights is None:
        return
    if is_rank_folder(settings.weights):
        check_rank_folder(plan, settings.weights)
    else:
        open_weights(plan.graph, settings.weights, settings.pickled, settings.extra)  # not read


def _check_dtype(plan: Plan, name: str | None) -> None:
    """Refuse a dtype that the model's graph cannot be run in: it says what it computes in."""
    asked, own = parse_dtype(name), parse_dtype(find_float_dtype(plan.graph))
    if asked is not None and own is not None and torch.promote_types(own, asked) != asked:
        raise ParframeError(
            "run",
            f"dtype {name}",
            f"the model's graph computes in {find_float_dtype(plan.graph)}, which is not narrower",
            f'load the model with dtype="{name}", or give the model in place of its plan',
        )


def _check_suited(plan: Plan, settings: Settings) -> None:
    """Refuse a model that generates no text, or not in this way."""
    if settings.cached and settings.executor in _KEEPING:
        check_cache_support(plan)
    else:
        check_causal(plan)


def hears(executor: str) -> bool:
    """Whether this process is told what comes of requests; others take part in silence."""
    return _HEARS.get(executor, lambda: True)()


def executor_of(name: str) -> Executor:
    """Find an executor, of parframe's own or of a plugin.

    Parameters
    ----------
    name
        Its name.

    Raises
    ------
    ParframeError
        Of kind ``run``, if there is none of this name; of kind ``plugin``, if that which brings it
        is at fault.
    """
    found: Executor | None = hooks.executor(name)
    found = EXECUTORS.get(name, found)
    if found is None:
        known = (*EXECUTORS, *hooks.claimed_executors())
        raise ParframeError(
            "run",
            f"executor {name!r}",
            f"there is none of this name{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )
    return found
