"""Executor `local`: this program starts one process a rank on this node."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from parframe.executors.memory_estimate import estimate_rank_memory
from parframe.generation.batch_shape import choose_batch_shape
from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.replicas import find_replicas
from parframe.generation.request_json import parse_outcome, to_json
from parframe.generation.requests import Request
from parframe.generation.scheduler import Batch, create_batches
from parframe.generation.settings import Settings, settings_to_json
from parframe.launcher import Launch
from parframe.launcher.channel import Message
from parframe.launcher.launch import Event
from parframe.plan import Plan
from parframe.plan.plan_json import dump_plan

MODULE = "parframe.executors.local_worker"
"""Module that the fork server runs."""

ENVIRONMENT: Mapping[str, str] = {
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCH_GLOO_LAZY_INIT": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Environment of the ranks: loopback networking, lazy connections and huge pages."""

_RENDEZVOUS_FACTOR = 1.25
"""Time limit of the rendezvous relative to other phases: ranks report missing ranks earlier."""


class WorkerMessages(Protocol):
    """Messages to and from the workers of a run."""

    def events(self) -> Iterator[Event]:
        """Yield the messages of the workers."""

    def send(self, rank: int, message: Message) -> None:
        """Send a message to a worker."""


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests; see `parframe.executors.generate`."""
    with create_launch(plan, requests, settings) as run:
        yield from serve_requests(run, plan, requests, settings)


def create_launch(
    plan: Plan,
    requests: Sequence[Request],
    settings: Settings,
    module: str = MODULE,
    facts: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """Create the launch of a run, to be entered as a context manager.

    Parameters
    ----------
    plan
        The plan.
    requests
        Requests of the run.
    settings
        Settings of the run.
    module
        Module that the fork server runs, or the path of its file.
    facts
        Additional data for every rank.
    environment
        Additional environment variables.
    """
    shape = choose_batch_shape(plan, requests, settings)
    run_facts = {
        "settings": settings_to_json(settings),
        "shape": attrs.asdict(shape),
        "run": uuid.uuid4().hex,
    }
    return Launch(
        module,
        "generate",
        plan.mesh.size,
        {**run_facts, **(facts or {})},
        dump_plan(plan).encode(),
        timeout=settings.timeout,
        timeouts={"rendezvous": _RENDEZVOUS_FACTOR * settings.timeout},
        estimates=estimate_rank_memory(plan, shape, settings.dtype),
        environment={**ENVIRONMENT, **(environment or {})},
    )


def serve_requests(
    run: WorkerMessages, plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Send the requests to the replicas of a run, and yield their outcomes."""
    replicas = find_replicas(plan)
    shape = choose_batch_shape(plan, requests, settings)
    waiting = deque(create_batches(requests, shape.batch_size, len(replicas)))
    replica_of = {rank: replica for replica in replicas for rank in replica.ranks}
    unready = {replica.number: set(replica.ranks) for replica in replicas}
    for event in run.events():
        message = event.message
        replica = replica_of[event.rank]
        if "ready" in message:
            unready[replica.number].discard(event.rank)
            if not unready[replica.number]:
                _send_next_batch(run, replica.ranks, waiting)
        elif "tokens" in message:
            yield from _parse_outcomes(message["tokens"])
        elif "results" in message:
            yield from _parse_outcomes(message["results"])
            _send_next_batch(run, replica.ranks, waiting)


def _send_next_batch(run: WorkerMessages, ranks: Sequence[int], waiting: deque[Batch]) -> None:
    """Send the next batch to an idle replica, or let it end."""
    message: dict[str, Any] = {"end": True}
    if waiting:
        message = {"batch": [to_json(request) for request in waiting.popleft().requests]}
    for rank in ranks:
        run.send(rank, message)


def _parse_outcomes(listed: Sequence[Mapping[str, Any]]) -> Iterator[Token | Result | Failure]:
    for facts in listed:
        yield parse_outcome(facts)
