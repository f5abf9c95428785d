"""Executor `host`: the calling program has created the process group of all ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.executors.external_ranks import (
    ExternalRankContext,
    Outcome,
    check_world_size,
    complete_requests,
)
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan


def generate(plan: Plan, requests: Sequence[Request], settings: Settings) -> Iterator[Outcome]:
    """Complete requests; see `parframe.executors.generate`.

    The default group is used and left as it is; the groups that parframe creates are closed.
    """
    if not has_process_group():
        raise ParframeError(
            "run",
            "executor host",
            "this program has no process group",
            "call torch.distributed.init_process_group first, or use another executor",
        )
    rank, world = dist.get_rank(), dist.get_world_size()
    check_world_size("host", world, plan)
    local = os.environ.get("LOCAL_RANK", "")
    local_rank = int(local) if local.isdecimal() else rank
    context = ExternalRankContext(rank, world, local_rank, settings.timeout)
    yield from complete_requests(context, plan, requests, settings)


def has_process_group() -> bool:
    """Return whether this program has a process group."""
    return dist.is_available() and dist.is_initialized()


def receives_outcomes() -> bool:
    """Return whether this process receives the outcomes of requests."""
    return not has_process_group() or dist.get_rank() == 0
