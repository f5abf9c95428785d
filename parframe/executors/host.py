"""The executor `host`: this program has made the process group of all ranks itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.executors.world import Outcome, Seat, check_world, serve
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan


def generate(plan: Plan, requests: Sequence[Request], settings: Settings) -> Iterator[Outcome]:
    """Complete requests; see `parframe.executors.generate`.

    The default group is used as it is and left as it was; groups made beside it are closed.
    """
    if not made():
        raise ParframeError(
            "run",
            "executor host",
            "this program has no process group",
            "call torch.distributed.init_process_group first, or use another executor",
        )
    rank, world = dist.get_rank(), dist.get_world_size()
    check_world("host", world, plan)
    local = os.environ.get("LOCAL_RANK", "")
    local_rank = int(local) if local.isdecimal() else rank
    seat = Seat(rank, world, local_rank, settings.timeout)
    yield from serve(seat, plan, requests, settings)


def made() -> bool:
    """Whether this program has a process group."""
    return dist.is_available() and dist.is_initialized()


def hears() -> bool:
    """Whether this process is the one that is told what comes of requests."""
    return not made() or dist.get_rank() == 0
