"""Ranks of a world that torchrun or a host program made; rank 0 receives all outcomes."""

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
from parframe.executors.devices import select_device
from parframe.executors.leader_messages import END, LeaderMessages, MessageQueue
from parframe.executors.rank_setup import ReadyRank, describe_run, set_up_rank
from parframe.generation.batch_shape import choose_batch_shape
from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.replicas import find_replicas
from parframe.generation.request_json import parse_outcome, to_json
from parframe.generation.requests import Request
from parframe.generation.scheduler import Batch, create_batches, distribute_batches
from parframe.generation.settings import Settings, settings_to_json
from parframe.plan import Plan
from parframe.runtime.process_groups import close_groups

Outcome = Token | Result | Failure
"""Token, result or failure of a request."""


@attrs.frozen
class ExternalRankContext:
    """Context of a rank of such a world; see `parframe.executors.rank_context.RankContext`.

    Parameters
    ----------
    rank, world
        Rank and world size.
    local_rank
        Rank on its node, by which its device is chosen.
    timeout
        Timeout of communication in seconds.
    store
        Store for the rendezvous; None if the process has process groups already.
    run
        Name of the run.
    threads
        Number of torch threads; None to leave it as it is.
    """

    rank: int
    world: int
    local_rank: int
    timeout: float
    store: Any = None
    run: str = ""
    threads: int | None = None

    def phase(self, name: str) -> None:
        """Ignore the beginning of a phase."""

    def step(self, number: int) -> None:
        """Ignore the beginning of a step."""

    def operator(self, name: str) -> None:
        """Ignore the beginning of an operator."""


def check_world_size(executor: str, world: int, plan: Plan) -> None:
    """Check that the world has as many ranks as the plan's mesh.

    Raises
    ------
    ParframeError
        Of kind ``run``, with both sizes.
    """
    if world != plan.mesh.size:
        raise ParframeError(
            "run",
            f"executor {executor}",
            f"the world has {world} ranks, and the plan has {plan.mesh.size}",
            f"start {plan.mesh.size} processes, or make a plan for {world}",
        )


def complete_requests(
    context: ExternalRankContext, plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Outcome]:
    """Complete the requests of this rank's replica, and yield all outcomes on rank 0.

    The rank computes in a thread of its own, so that tokens arrive while others are computed. An
    iterator that is closed early first runs to its end, since other ranks cannot know that nobody
    listens.

    Yields
    ------
    Token, Result or Failure
        All outcomes on rank 0, nothing on other ranks.

    Raises
    ------
    ParframeError
        If the run cannot begin, or fails.
    """
    queue: MessageQueue = SimpleQueue()

    def work() -> None:
        try:
            _run_rank(context, plan, requests, settings, queue)
        except BaseException as error:  # noqa: BLE001 - the reader of the queue raises it
            queue.put(_convert_error(context.rank, error))
        else:
            queue.put(END)

    thread = Thread(target=work, name="parframe rank", daemon=True)
    thread.start()
    outcomes = _read_queue(queue, 1 + (len(_find_leaders(plan)) if context.rank == 0 else 0))
    try:
        for outcome in outcomes:  # noqa: UP028 - `yield from` would close `outcomes` too early
            yield outcome
    finally:
        for _ in outcomes:
            pass
    thread.join()


def _read_queue(queue: MessageQueue, senders: int) -> Iterator[Outcome]:
    """Yield the outcomes in the messages, until all senders have ended."""
    while senders:
        message = queue.get()
        if isinstance(message, BaseException):
            raise message
        senders -= not message
        yield from map(parse_outcome, message)


def _run_rank(
    context: ExternalRankContext,
    plan: Plan,
    requests: Sequence[Request],
    settings: Settings,
    queue: MessageQueue,
) -> None:
    """Set up the rank, and complete the batches of its replica."""
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    shape = choose_batch_shape(plan, requests, settings)
    if context.store is None:
        _compare_arguments(context, plan, requests, settings)
    rank = set_up_rank(context, plan, settings, shape, context.run, local_rank=context.local_rank)
    if context.store is not None:
        _compare_arguments(context, plan, requests, settings)
    messages = LeaderMessages(context.rank, _find_leaders(plan), queue, context.timeout)
    replicas = len(find_replicas(plan))
    batches = create_batches(requests, shape.batch_size, replicas)
    _complete_batches(rank, distribute_batches(batches, replicas)[rank.replica.number], messages)
    messages.close()
    if settings.device == "cuda":
        torch.cuda.synchronize()
    _close_groups(context, rank)


def _complete_batches(rank: ReadyRank, batches: Sequence[Batch], messages: LeaderMessages) -> None:
    """Complete batches, and send their outcomes."""

    def send_tokens(tokens: Sequence[Token]) -> None:
        messages.send([to_json(token) for token in tokens])

    for batch in batches:
        messages.send([to_json(result) for result in rank.complete(batch, send_tokens)])


def _close_groups(context: ExternalRankContext, rank: ReadyRank) -> None:
    """Close the process groups that parframe made, and only those."""
    if context.store is not None:
        close_groups()
        return
    for group in rank.engine.groups.values():
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)


def _find_leaders(plan: Plan) -> list[int]:
    """Return the leaders of the replicas, without rank 0."""
    leaders = [replica.logits_ranks[0] for replica in find_replicas(plan)]
    return [leader for leader in leaders if leader != 0]


def _compare_arguments(
    context: ExternalRankContext, plan: Plan, requests: Sequence[Request], settings: Settings
) -> None:
    """Check that all ranks have the same plan, settings and requests."""
    without_weights = attrs.evolve(settings, weights=None)  # nodes may have other folders
    facts: Mapping[str, Any] = {
        "versions, plugins or plan": describe_run(plan),
        "settings": settings_to_json(without_weights),
        "requests": [to_json(request) for request in requests],
    }
    digests = b"".join(
        hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).digest()
        for fact in facts.values()
    )
    own = torch.tensor(list(digests), dtype=torch.uint8)
    own = own.to(select_device(settings.device, context.local_rank, settings.share_gpus))
    gathered = [torch.empty_like(own) for _ in range(context.world)]
    dist.all_gather(gathered, own)
    for rank, digest in enumerate(gathered):
        equal = (digest == gathered[0]).view(len(facts), -1).all(1).tolist()
        different = [name for name, same in zip(facts, equal, strict=True) if not same]
        if different:
            raise ParframeError(
                "run",
                f"rank {context.rank}",
                f"rank {rank} has other {' and '.join(different)} than rank 0",
                "start every rank with the same arguments",
            )


def _convert_error(rank: int, error: BaseException) -> BaseException:
    """Convert an error of torch.distributed to one that names the rank."""
    if isinstance(error, ParframeError) or not isinstance(error, RuntimeError):
        return error
    first = next(iter(str(error).splitlines()), type(error).__name__)
    converted = ParframeError("run", f"rank {rank}", first, "read the errors of the other ranks")
    converted.__cause__ = error
    return converted
