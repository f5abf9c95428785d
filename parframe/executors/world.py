"""Batches completed by a rank of a world that others made; rank 0 hears what came of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

import attrs
import torch
import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.executors.leader_messages import END, Letters, Office
from parframe.executors.rank import Ready, device_of, facts_of_run, ready, results_of, shape_of
from parframe.generation.replicas import replicas_of
from parframe.generation.requests import Failure, Request, Result, Token, facts_of, outcome_of
from parframe.generation.scheduler import Batch, batches, distributed
from parframe.generation.settings import Settings, facts_of_settings
from parframe.plan import Plan
from parframe.runtime.process_groups import close_groups

Outcome = Token | Result | Failure


@attrs.frozen
class Seat:
    """A rank's place in a world; see `parframe.executors.rank.Station`.

    Parameters
    ----------
    rank, world
        Which rank it is, and of how many.
    local_rank
        Which of its host's, whose devices are counted from 0.
    timeout
        How many seconds a communication may take.
    store
        Where the ranks meet; None if the host has process groups already.
    run
        What tells this run from others.
    threads
        On how many threads it computes; None for as many as the host has chosen.
    """

    rank: int
    world: int
    local_rank: int
    timeout: float
    store: Any = None
    run: str = ""
    threads: int | None = None

    def phase(self, name: str) -> None:
        """A phase begins; nobody asks."""

    def step(self, number: int) -> None:
        """A step begins; nobody asks."""

    def operator(self, name: str) -> None:
        """An operator begins; nobody asks."""


def check_world(executor: str, world: int, plan: Plan) -> None:
    """Refuse a world of another size than the plan's mesh.

    Raises
    ------
    ParframeError
        Of kind ``run``, with both sizes.
    """
    if world != plan.mesh.size:
        raise ParframeError(
            "run",
            f"executor {executor}",
            f"the world has {world} ranks, and the plan is for {plan.mesh.size}",
            f"start {plan.mesh.size} processes, or make a plan for {world}",
        )


def serve(
    seat: Seat, plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Outcome]:
    """Do a rank's part of completing requests.

    It computes in a thread of its own, so that tokens are told while others are computed. Other
    ranks cannot know that nobody listens: closed early, the iterator first goes to its end.

    Yields
    ------
    Token, Result or Failure
        On rank 0 all there are; nothing on others.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails.
    """
    letters: Letters = SimpleQueue()

    def work() -> None:
        try:
            _work(seat, plan, requests, settings, letters)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where it can be seen
            letters.put(_told(seat.rank, error))
        else:
            letters.put(END)

    thread = Thread(target=work, name="parframe rank", daemon=True)
    thread.start()
    opened = _opened(letters, 1 + (len(_leaders(plan)) if seat.rank == 0 else 0))
    try:
        for outcome in opened:  # noqa: UP028 - `yield from` would close what is still to be read
            yield outcome
    finally:
        for _ in opened:
            pass
    thread.join()


def _opened(letters: Letters, expected: int) -> Iterator[Outcome]:
    """What letters say, until as many have said that it was all."""
    while expected:
        letter = letters.get()
        if isinstance(letter, BaseException):
            raise letter
        expected -= not letter
        yield from map(outcome_of, letter)


def _work(
    seat: Seat, plan: Plan, requests: Sequence[Request], settings: Settings, letters: Letters
) -> None:
    """Meet the others, load, and complete the batches of the own replica."""
    if seat.threads is not None:
        torch.set_num_threads(seat.threads)
    shape = shape_of(plan, requests, settings)
    if seat.store is None:
        _agree(seat, plan, requests, settings)
    serving = ready(seat, plan, settings, shape, seat.run, local_rank=seat.local_rank)
    if seat.store is not None:
        _agree(seat, plan, requests, settings)
    office = Office(seat.rank, _leaders(plan), letters, seat.timeout)
    replicas = len(replicas_of(plan))
    parts = batches(requests, shape.rows * shape.lanes, replicas)
    _complete(serving, distributed(parts, replicas)[serving.replica.number], office)
    office.close()
    if settings.device == "cuda":
        torch.cuda.synchronize()
    _close(seat, serving)


def _complete(serving: Ready, parts: Sequence[Batch], office: Office) -> None:
    """Complete batches, and post what comes of them."""

    def told(tokens: Sequence[Token]) -> None:
        office.post([facts_of(token) for token in tokens])

    for batch in parts:
        office.post([facts_of(result) for result in results_of(serving, batch, told)])


def _close(seat: Seat, serving: Ready) -> None:
    """Close the groups that were made here, and only those."""
    if seat.store is not None:
        close_groups()
        return
    for group in serving.engine.groups.values():
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)


def _leaders(plan: Plan) -> list[int]:
    """The ranks other than 0 that tell what their replicas draw."""
    return [replica.tail[0] for replica in replicas_of(plan) if replica.tail[0] != 0]


def _agree(seat: Seat, plan: Plan, requests: Sequence[Request], settings: Settings) -> None:
    """Refuse to begin if ranks were asked for different things."""
    own = attrs.evolve(settings, weights=None)  # hosts may have them in other folders
    facts: Mapping[str, Any] = {
        "versions, plugins or plan": facts_of_run(plan),
        "settings": facts_of_settings(own),
        "requests": [facts_of(request) for request in requests],
    }
    digests = b"".join(
        hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).digest()
        for fact in facts.values()
    )
    mine = torch.tensor(list(digests), dtype=torch.uint8)
    mine = mine.to(device_of(settings.device, seat.local_rank, settings.shared))
    all_of = [torch.empty_like(mine) for _ in range(seat.world)]
    dist.all_gather(all_of, mine)
    for rank, theirs in enumerate(all_of):
        parts = zip(facts, (theirs == all_of[0]).view(len(facts), -1).all(1).tolist(), strict=True)
        different = [name for name, same in parts if not same]
        if different:
            raise ParframeError(
                "run",
                f"rank {seat.rank}",
                f"rank {rank} has other {' and '.join(different)} than rank 0",
                "start the same on every rank",
            )


def _told(rank: int, error: BaseException) -> BaseException:
    """An error for the person; those of torch.distributed are of no kind of their own."""
    if isinstance(error, ParframeError) or not isinstance(error, RuntimeError):
        return error
    first = next(iter(str(error).splitlines()), type(error).__name__)
    found = ParframeError("run", f"rank {rank}", first, "see what the other ranks say")
    found.__cause__ = error
    return found
