"""What exchanges between the ranks of this host take, as part of work that they do together.

Before each exchange every rank reads some memory, as the layers of a model do: ranks do not come
at one moment, and who waits has to be woken. What this reading takes alone is taken off.
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
from parframe.measurement.samples import Times, times_of
from parframe.ops.group_registry import register_group

_c10d = torch.ops._c10d_functional

SIZES = (1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
"""Bytes of the messages."""

_READ = 4 << 20
"""Bytes that a rank reads before each exchange."""

_TIMES = 20
_LEAST = 1e-6


@attrs.frozen
class Ring:
    """Ranks that exchange: which they are, their process group, and this one's place."""

    ranks: tuple[int, ...]
    group: Any
    place: int
    device: torch.device

    @property
    def name(self) -> str:
        """The name by which operators know the group."""
        return register_group(self.group)

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.ranks)


@attrs.frozen
class Exchange:
    """What was measured of one exchange."""

    kind: str
    ranks: int
    bytes: int
    times: Times


def exchanges(ring: Ring, sizes: Sequence[int] = SIZES, times: int = _TIMES) -> Iterator[Exchange]:
    """Measure every kind among some ranks, on each of them at once."""
    for kind, exchange in KINDS.items():
        for size in sizes:
            elements = max(size // 4 // ring.size, 1) * ring.size
            own = torch.ones(elements, device=ring.device)
            seconds = _timed(ring, partial(exchange, ring, own), times)
            yield Exchange(kind, ring.size, size, seconds)


def sends(ring: Ring, sizes: Sequence[int] = SIZES, times: int = _TIMES) -> Iterator[Exchange]:
    """Measure a message from the first rank to the second: both ways, halved."""
    for size in sizes:
        own = torch.ones(max(size // 4, 1), device=ring.device)
        yield Exchange("send", 2, size, _sent(ring, own, times))


def _timed(ring: Ring, exchange: Callable[[], object], times: int) -> Times:
    memory = torch.ones(_READ // 4, device=ring.device)
    alone, together = [], []
    for _ in range(times):
        alone.append(_seconds(ring, memory.sum))
        together.append(_seconds(ring, lambda: (memory.sum(), exchange())))
    return _difference(together, alone)


def _sent(ring: Ring, own: torch.Tensor, times: int) -> Times:
    """Each rank works while the other one waits, as stages of a pipeline do."""
    memory = torch.ones(_READ // 4, device=ring.device)
    alone, together = [], []
    for _ in range(times):
        alone.append(_seconds(ring, memory.sum))
        together.append(_seconds(ring, lambda: _there_and_back(ring, own, memory)))
    both = _difference(together, [2 * one for one in alone])
    return both / 2


def _there_and_back(ring: Ring, own: torch.Tensor, memory: torch.Tensor) -> None:
    if ring.place == 0:
        memory.sum()
        dist.send(own, ring.ranks[1], group=ring.group)
        dist.recv(own, ring.ranks[1], group=ring.group)
    else:
        dist.recv(own, ring.ranks[0], group=ring.group)
        memory.sum()
        dist.send(own, ring.ranks[0], group=ring.group)


def _seconds(ring: Ring, once: Callable[[], object]) -> float:
    begun = time.perf_counter()
    once()
    if ring.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _difference(together: Sequence[float], alone: Sequence[float]) -> Times:
    """What it takes more than the reading."""
    whole, base = times_of(together), times_of(alone)
    return Times(max(whole.low - base.low, _LEAST), max(whole.middle - base.middle, _LEAST))


def _reduced(ring: Ring, own: torch.Tensor) -> torch.Tensor:
    if ring.device.type == "cpu":
        name = ring.name
        found: torch.Tensor = torch.ops.parframe.cpu_all_reduce(
            own, "sum", ring.size, ring.place, name
        )
        return found
    return _done(_c10d.all_reduce(own, "sum", ring.name))


def _gathered(ring: Ring, own: torch.Tensor) -> torch.Tensor:
    part = own[: own.numel() // ring.size]
    if ring.device.type == "cpu":
        name = ring.name
        found: torch.Tensor = torch.ops.parframe.cpu_all_gather(part, ring.size, ring.place, name)
        return found
    return _done(_c10d.all_gather_into_tensor(part.contiguous(), ring.size, ring.name))


def _scattered(ring: Ring, own: torch.Tensor) -> torch.Tensor:
    name = ring.name
    return _done(_c10d.reduce_scatter_tensor(own, "sum", ring.size, name))


def _to_all(ring: Ring, own: torch.Tensor) -> torch.Tensor:
    each = [own.numel() // ring.size] * ring.size
    return _done(_c10d.all_to_all_single(own, each, each, ring.name))


def _broadcast(ring: Ring, own: torch.Tensor) -> torch.Tensor:
    return _done(_c10d.broadcast(own, 0, ring.name))


def _done(sent: torch.Tensor) -> torch.Tensor:
    done: torch.Tensor = _c10d.wait_tensor(sent)
    return done


KINDS: Mapping[str, Callable[[Ring, torch.Tensor], torch.Tensor]] = {
    "all_reduce": _reduced,
    "all_gather": _gathered,
    "reduce_scatter": _scattered,
    "all_to_all": _to_all,
    "broadcast": _broadcast,
}
"""The collectives of plans, each with a message of so many elements in all."""
