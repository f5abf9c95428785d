"""The executor `local`: this program starts a process for every rank, on this host."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from parframe.executing.rank import shape_of
from parframe.generating.replicas import replicas_of
from parframe.generating.requests import Failure, Request, Result, Token, facts_of, outcome_of
from parframe.generating.schedule import Batch, batches
from parframe.generating.settings import Settings, facts_of_settings
from parframe.launching import Launch
from parframe.plan import Plan
from parframe.plan.file import dump

MODULE = "parframe.executing.nursery"
"""The module whose process starts the ranks."""

ENVIRONMENT: Mapping[str, str] = {
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCH_GLOO_LAZY_INIT": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Nothing listens beyond loopback; connections are made when needed; memory in large pages."""


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests; see `parframe.executing.generate`."""
    replicas = replicas_of(plan)
    shape = shape_of(plan, requests, settings)
    waiting = deque(batches(requests, shape.rows * shape.lanes, len(replicas)))
    facts = {
        "settings": facts_of_settings(settings),
        "shape": attrs.asdict(shape),
        "run": uuid.uuid4().hex,
    }
    with Launch(
        MODULE,
        "generate",
        plan.mesh.size,
        facts,
        dump(plan).encode(),
        timeout=settings.timeout,
        environment=ENVIRONMENT,
    ) as run:
        served = {rank: replica for replica in replicas for rank in replica.ranks}
        unready = {replica.number: set(replica.ranks) for replica in replicas}
        for event in run.events():
            message = event.message
            replica = served[event.rank]
            if "ready" in message:
                unready[replica.number].discard(event.rank)
                if not unready[replica.number]:
                    _next(run, replica.ranks, waiting)
            elif "tokens" in message:
                yield from _outcomes(message["tokens"])
            elif "results" in message:
                yield from _outcomes(message["results"])
                _next(run, replica.ranks, waiting)


def _next(run: Launch, ranks: Sequence[int], waiting: deque[Batch]) -> None:
    """Give a replica that is free the next batch, or let it end."""
    message: dict[str, Any] = {"end": True}
    if waiting:
        message = {"batch": [facts_of(request) for request in waiting.popleft().requests]}
    for rank in ranks:
        run.send(rank, message)


def _outcomes(listed: Sequence[Mapping[str, Any]]) -> Iterator[Token | Result | Failure]:
    for facts in listed:
        yield outcome_of(facts)
