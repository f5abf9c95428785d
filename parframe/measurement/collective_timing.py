"""Times of collectives and transfers between the ranks of this node.

Before each collective every rank reads some memory, as the layers of a model do: ranks do not
arrive at the same moment, and those that wait must be woken. The time of the reading alone is
subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
import torch.distributed as dist

import parframe.runtime.shared_memory_collectives  # noqa: F401  registers its operators
from parframe.measurement.samples import Times, summarize_times
from parframe.ops.group_registry import register_group

_c10d = torch.ops._c10d_functional

SIZES = (1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
"""Message sizes in bytes."""

_READ_BYTES = 4 << 20
"""Bytes that a rank reads before each collective."""

_REPEATS = 20
_MIN_SECONDS = 1e-6


@attrs.frozen
class TimedGroup:
    """Ranks that communicate."""

    ranks: tuple[int, ...]
    group: Any
    rank: int  # this rank's index in the group
    device: torch.device  # that of the messages

    @property
    def name(self) -> str:
        """Name of the process group, as operators take it."""
        return register_group(self.group)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.ranks)


@attrs.frozen
class CollectiveTimes:
    """Times of one collective, or of a send."""

    kind: str  # such as ``"all_reduce"``
    ranks: int
    bytes: int  # those of the message
    times: Times


Collective = Callable[[TimedGroup, torch.Tensor], torch.Tensor]


def time_collectives(
    group: TimedGroup, sizes: Sequence[int] = SIZES, repeats: int = _REPEATS
) -> Iterator[CollectiveTimes]:
    """Time every collective for every message size, on all ranks of a group at once."""
    for kind, collective in COLLECTIVES.items():
        for size in sizes:
            elements = max(size // 4 // group.size, 1) * group.size
            message = torch.ones(elements, device=group.device)
            run = partial(_read_and_run, collective, group, message)
            yield CollectiveTimes(kind, group.size, size, _time(group, run, 1, repeats))


def time_sends(
    group: TimedGroup, sizes: Sequence[int] = SIZES, repeats: int = _REPEATS
) -> Iterator[CollectiveTimes]:
    """Time a message from the first rank to the second: half the time of both ways.

    Each rank works while the other one waits, as in a pipeline.
    """
    for size in sizes:
        message = torch.ones(max(size // 4, 1), device=group.device)
        run = partial(_send_and_return, group, message)
        yield CollectiveTimes("send", 2, size, _time(group, run, 2, repeats) / 2)


def _time(
    group: TimedGroup, run: Callable[[torch.Tensor], object], reads: int, repeats: int
) -> Times:
    """Time communication with reads of memory before it, and subtract the time of the reads."""
    memory = torch.ones(_READ_BYTES // 4, device=group.device)
    reading, both = [], []
    for _ in range(repeats):
        reading.append(reads * _measure_seconds(group, memory.sum))
        both.append(_measure_seconds(group, lambda: run(memory)))
    whole, base = summarize_times(both), summarize_times(reading)
    p10, median = whole.p10 - base.p10, whole.median - base.median
    return Times(max(p10, _MIN_SECONDS), max(median, _MIN_SECONDS))


def _read_and_run(
    collective: Collective, group: TimedGroup, message: torch.Tensor, memory: torch.Tensor
) -> None:
    memory.sum()
    collective(group, message)


def _send_and_return(group: TimedGroup, message: torch.Tensor, memory: torch.Tensor) -> None:
    if group.rank == 0:
        memory.sum()
        dist.send(message, group.ranks[1], group=group.group)
        dist.recv(message, group.ranks[1], group=group.group)
    else:
        dist.recv(message, group.ranks[0], group=group.group)
        memory.sum()
        dist.send(message, group.ranks[0], group=group.group)


def _measure_seconds(group: TimedGroup, run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if group.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _all_reduce(group: TimedGroup, message: torch.Tensor) -> torch.Tensor:
    if group.device.type == "cpu":
        result: torch.Tensor = torch.ops.parframe.cpu_all_reduce(
            message, "sum", group.size, group.rank, group.name
        )
        return result
    return _wait(_c10d.all_reduce(message, "sum", group.name))


def _all_gather(group: TimedGroup, message: torch.Tensor) -> torch.Tensor:
    part = message[: message.numel() // group.size]
    if group.device.type == "cpu":
        result: torch.Tensor = torch.ops.parframe.cpu_all_gather(
            part, group.size, group.rank, group.name
        )
        return result
    return _wait(_c10d.all_gather_into_tensor(part.contiguous(), group.size, group.name))


def _reduce_scatter(group: TimedGroup, message: torch.Tensor) -> torch.Tensor:
    return _wait(_c10d.reduce_scatter_tensor(message, "sum", group.size, group.name))


def _all_to_all(group: TimedGroup, message: torch.Tensor) -> torch.Tensor:
    sizes = [message.numel() // group.size] * group.size
    return _wait(_c10d.all_to_all_single(message, sizes, sizes, group.name))


def _broadcast(group: TimedGroup, message: torch.Tensor) -> torch.Tensor:
    return _wait(_c10d.broadcast(message, 0, group.name))


def _wait(pending: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _c10d.wait_tensor(pending)
    return result


COLLECTIVES: Mapping[str, Collective] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "broadcast": _broadcast,
}
"""Collectives of plans; each takes a message that is as large as all parts together."""
