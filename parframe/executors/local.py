"""The executor `local`: this program starts a process for every rank, on this host."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from parframe.executors.memory_estimate import estimates
from parframe.executors.rank import shape_of
from parframe.generation.replicas import replicas_of
from parframe.generation.requests import Failure, Request, Result, Token, facts_of, outcome_of
from parframe.generation.scheduler import Batch, batches
from parframe.generation.settings import Settings, facts_of_settings
from parframe.launcher import Launch
from parframe.launcher.channel import Message
from parframe.launcher.launch import Event
from parframe.plan import Plan
from parframe.plan.plan_json import dump_plan

MODULE = "parframe.executors.fork_server"
"""The module whose process starts the ranks."""

ENVIRONMENT: Mapping[str, str] = {
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCH_GLOO_LAZY_INIT": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Nothing listens beyond loopback; connections are made when needed; memory in large pages."""

_MEETING = 1.25
"""Of the time in which something must happen, what a rendezvous has: ranks know who did not come,
and say so before."""


class Served(Protocol):
    """The processes of a run, as what serves them sees them."""

    def events(self) -> Iterator[Event]:
        """What the ranks tell."""

    def send(self, rank: int, message: Message) -> None:
        """Tell a rank."""


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests; see `parframe.executors.generate`."""
    with launched(plan, requests, settings) as run:
        yield from served(run, plan, requests, settings)


def launched(
    plan: Plan,
    requests: Sequence[Request],
    settings: Settings,
    module: str = MODULE,
    facts: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """The processes of a run, to be entered as a context.

    Parameters
    ----------
    plan
        The plan.
    requests
        What will be completed.
    settings
        How the plan is run.
    module
        The module of the starting process, or the path of its file.
    facts
        More that every rank is told.
    environment
        More variables of the environment.
    """
    shape = shape_of(plan, requests, settings)
    told = {
        "settings": facts_of_settings(settings),
        "shape": attrs.asdict(shape),
        "run": uuid.uuid4().hex,
    }
    return Launch(
        module,
        "generate",
        plan.mesh.size,
        {**told, **(facts or {})},
        dump_plan(plan).encode(),
        timeout=settings.timeout,
        timeouts={"rendezvous": _MEETING * settings.timeout},
        estimates=estimates(plan, shape, settings.dtype),
        environment={**ENVIRONMENT, **(environment or {})},
    )


def served(
    run: Served, plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Give the processes of a run its requests, and tell what comes of them."""
    replicas = replicas_of(plan)
    shape = shape_of(plan, requests, settings)
    waiting = deque(batches(requests, shape.rows * shape.lanes, len(replicas)))
    serving = {rank: replica for replica in replicas for rank in replica.ranks}
    unready = {replica.number: set(replica.ranks) for replica in replicas}
    for event in run.events():
        message = event.message
        replica = serving[event.rank]
        if "ready" in message:
            unready[replica.number].discard(event.rank)
            if not unready[replica.number]:
                _next(run, replica.ranks, waiting)
        elif "tokens" in message:
            yield from _outcomes(message["tokens"])
        elif "results" in message:
            yield from _outcomes(message["results"])
            _next(run, replica.ranks, waiting)


def _next(run: Served, ranks: Sequence[int], waiting: deque[Batch]) -> None:
    """Give a replica that is free the next batch, or let it end."""
    message: dict[str, Any] = {"end": True}
    if waiting:
        message = {"batch": [facts_of(request) for request in waiting.popleft().requests]}
    for rank in ranks:
        run.send(rank, message)


def _outcomes(listed: Sequence[Mapping[str, Any]]) -> Iterator[Token | Result | Failure]:
    for facts in listed:
        yield outcome_of(facts)
