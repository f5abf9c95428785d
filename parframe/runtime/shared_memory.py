"""Shared memory in which ranks of one node pass each other small messages without system calls.

A message over a socket costs several wake-ups of threads and processes, many times what a product
of one row takes. Processes that have processors of their own can poll a counter in shared memory
instead, as MPI libraries do within a node (Graham and Shipman 2008, "MPI Support for Multi-core
Architectures: Optimized Shared Memory Collectives").
"""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

SLOT_BYTES = 2**20
"""Largest message in bytes."""

_LINE = 64
"""Bytes between the counters of ranks, so that no two share a cache line of a processor."""
_WORDS = _LINE // 8
_SPINS = 20_000
"""Polls of a counter, some 50 ns each, before the rank sleeps between polls."""
_POLL_SECONDS = 1e-4
"""Seconds of sleep between later polls."""

SEGMENT_NAME = "parframe-messages"
"""Name of the memory in the system's list of a process's mappings."""

_ORDERED_STORES = {"x86_64", "AMD64"}
"""Architectures whose processors see each other's stores in program order."""
_MASK_WORDS = 16
"""Words of 63 processors each in which a rank reports its processors."""


def segment_bytes(size: int) -> int:
    """Return the bytes of shared memory that a group of ``size`` ranks needs."""
    return size * (_LINE + 2 * SLOT_BYTES)


class Segment:
    """Shared-memory segment of the ranks of a group.

    Every rank has two slots and a counter. It writes a message into one slot and the message's size
    next to the counter, and then increments the counter; the others read the message once they see
    the new count. The next message goes into the other slot, and the one after that into the first
    again: by then every rank has counted the message between, so it has read the one before.

    The memory is zeros at first, of `segment_bytes`. ``processes`` are the process ids of the
    ranks; ``timeout`` is the seconds to wait for another rank.
    """

    def __init__(
        self, memory: mmap.mmap, size: int, rank: int, processes: Sequence[int], timeout: float
    ) -> None:
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self._slots = whole[size * _LINE :].view(2, size, SLOT_BYTES)
        self._counters = memoryview(memory)[: size * _LINE].cast("q")
        self._size = size
        self._rank = rank
        self._others = [other for other in range(size) if other != rank]
        self._processes = processes
        self._timeout = timeout
        self._count = 0

    def all_gather(self, own: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all ranks, which have equal shapes of at most `SLOT_BYTES` bytes.

        The result (``[size, *own.shape]``) is in shared memory: read-only, valid until the next
        call but one.

        Raises
        ------
        ConnectionError
            If a rank has died or does not arrive in time.
        RuntimeError
            If this rank's message is not of the size of the others' messages.
        """
        self._count += 1
        turn = self._count % 2
        parts = self._slots[turn, :, : own.nbytes].view(own.dtype).view(self._size, *own.shape)
        parts[self._rank].copy_(own)
        counters, count = self._counters, self._count
        counters[self._rank * _WORDS + 1 + turn] = own.nbytes
        counters[self._rank * _WORDS] = count
        for other in self._others:
            index = other * _WORDS
            for _ in range(_SPINS):
                if counters[index] >= count:
                    break
            else:
                self._wait(other)
            if counters[index + 1 + turn] != own.nbytes:
                self._raise_size_mismatch(own.nbytes)
        return parts

    def _raise_size_mismatch(self, own: int) -> NoReturn:
        """Raise an error with the rank whose message size differs from the others'.

        That is a RuntimeError on the rank whose size is the least frequent, or the smallest of
        equally frequent ones, and a ConnectionError on the other ranks.
        """
        for other in self._others:
            self._wait(other)
        turn = self._count % 2
        sizes = [self._counters[rank * _WORDS + 1 + turn] for rank in range(self._size)]
        wrong = min(sizes, key=lambda size: (sizes.count(size), size))
        if own == wrong:
            usual = max(sizes, key=lambda size: (sizes.count(size), size))
            raise RuntimeError(f"data size doesn't match: {usual} vs {own}")
        raise ConnectionError(f"rank {sizes.index(wrong)} of a group sent {wrong} bytes, not {own}")

    def _wait(self, other: int) -> None:
        """Wait for a rank that is late, and check that its process is alive."""
        deadline = time.monotonic() + self._timeout
        descriptor = _open_process(self._processes[other])
        try:
            while self._counters[other * _WORDS] < self._count:
                ended = descriptor is None or select.select([descriptor], [], [], _POLL_SECONDS)[0]
                if ended and self._counters[other * _WORDS] < self._count:
                    raise ConnectionError(
                        f"connection closed by rank {other} of a group: process "
                        f"{self._processes[other]} has ended"
                    )
                if time.monotonic() > deadline:
                    raise ConnectionError(
                        f"timed out after {self._timeout:g} s: rank {other} of a group did not "
                        "arrive"
                    )
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _open_process(process: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; None if it has ended."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None


def create_segment(group: Any, size: int, rank: int) -> Segment | None:
    """Create the shared memory of a group, or return None if its ranks cannot share memory.

    They can if they run on one node whose processors keep the order of stores, and each has
    processors of its own: a rank that polls would otherwise keep another one from running. All
    ranks call this together, and either all get a segment or none does.
    """
    descriptor = _create_memory(size)
    try:
        facts = _all_gather(group, _collect_facts(descriptor), size)
        if not _can_share(facts):
            return None
        processes = [fact[-2] for fact in facts]
        memory = _map_memory(f"/proc/{processes[0]}/fd/{facts[0][-1]}", size)
        if not all(mapped for (mapped,) in _all_gather(group, [int(memory is not None)], size)):
            return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    timeout = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    return Segment(memory, size, rank, processes, timeout) if memory is not None else None


def _create_memory(size: int) -> int:
    """Return a descriptor of anonymous memory of zeros; -1 where the system has none."""
    if platform.machine() not in _ORDERED_STORES or not hasattr(os, "memfd_create"):
        return -1
    descriptor = os.memfd_create(SEGMENT_NAME)
    os.truncate(descriptor, segment_bytes(size))
    return descriptor


def _map_memory(path: str, size: int) -> mmap.mmap | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # this process may not open files of the other one
        return None
    try:
        return mmap.mmap(descriptor, segment_bytes(size))
    finally:
        os.close(descriptor)


def _collect_facts(descriptor: int) -> list[int]:
    """Return the node, the processors, the process id and the memory of this rank."""
    node, processors = 0, 0
    if descriptor >= 0:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        spaces = [os.readlink(f"/proc/self/ns/{space}") for space in ("net", "pid")]
        digest = hashlib.sha256("|".join([boot, *spaces]).encode()).digest()
        node = int.from_bytes(digest[:7], "little")
        processors = sum(1 << number for number in os.sched_getaffinity(0))
    mask = [processors >> (63 * word) & (2**63 - 1) for word in range(_MASK_WORDS)]
    return [node, *mask, os.getpid(), descriptor]


def _can_share(facts: Sequence[Sequence[int]]) -> bool:
    """Return whether all ranks are on one node with memory, and have disjoint processors."""
    if any(fact[0] != facts[0][0] or fact[-1] < 0 for fact in facts):
        return False
    used = [0] * _MASK_WORDS
    for fact in facts:
        mask = fact[1 : 1 + _MASK_WORDS]
        if not any(mask) or any(one & other for one, other in zip(mask, used, strict=True)):
            return False
        used = [one | other for one, other in zip(mask, used, strict=True)]
    return True


def _all_gather(group: Any, own: list[int], size: int) -> list[list[int]]:
    tensor = torch.tensor(own)
    whole = torch.empty(size * len(own), dtype=torch.int64)
    group._allgather_base(whole, tensor).wait()
    rows: list[list[int]] = whole.view(size, -1).tolist()
    return rows
