"""Memory in which processes of one machine hand each other small messages, without the system.

A message over a socket costs several wake-ups of threads and processes, many times what a product
of one row takes. Processes that have processors of their own can watch a number in shared memory
instead, as MPI's libraries do within a node (Graham and Shipman 2008, "MPI Support for Multi-core
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

SLOT = 2**20
"""Bytes of a message that a member has room for."""

NAME = "parframe-messages"
"""What the memory is called where the system lists what a process has mapped."""

_LINE = 64
"""Bytes between the members' counters, so that no two share a line of a processor's cache."""
_WORDS = _LINE // 8
_SPINS = 20_000
"""Looks at a counter, some 50 ns each, before a processor is left to others between looks."""
_REST = 1e-4
"""Seconds between later looks."""
_IN_ORDER = {"x86_64", "AMD64"}
"""Machines whose processors see each other's stores in the order in which they were made."""
_MASK = 16
"""Words of 63 processors each that a member tells of."""


def bytes_of(size: int) -> int:
    """The bytes that a group of so many members shares."""
    return size * (_LINE + 2 * SLOT)


class Segment:
    """A piece of memory that the members of a group share.

    Every member has two slots and a counter. It writes a message into one slot, beside the counter
    its bytes, and then counts it; the others read it when they see the count. With the next message
    it takes the other slot, and with the one after that the first again: by then everybody has
    counted the message between, and so has read the one before.

    Parameters
    ----------
    memory
        What is shared, zeros to begin with; `bytes_of` a group of its size.
    size, place
        How many members there are, and which this is.
    processes
        The members' processes, by their numbers.
    timeout
        Seconds to wait for a member.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        size: int,
        place: int,
        processes: Sequence[int],
        timeout: float,
    ) -> None:
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self._slots = whole[size * _LINE :].view(2, size, SLOT)
        self._counters = memoryview(memory)[: size * _LINE].cast("q")
        self._size = size
        self._place = place
        self._others = [other for other in range(size) if other != place]
        self._processes = processes
        self._timeout = timeout
        self._count = 0

    def exchange(self, own: torch.Tensor) -> torch.Tensor:
        """Every member's tensor, stacked along a new axis 0, in shared memory.

        Parameters
        ----------
        own
            This member's; all have equal shapes, of at most `SLOT` bytes.

        Returns
        -------
        torch.Tensor
            Good until the next exchange but one; not to be written.

        Raises
        ------
        ConnectionError
            If a member has died or does not come in time.
        RuntimeError
            If this member's message is not of the size that the others' have.
        """
        self._count += 1
        turn = self._count % 2
        parts = self._slots[turn, :, : own.nbytes].view(own.dtype).view(self._size, *own.shape)
        parts[self._place].copy_(own)
        counters, count = self._counters, self._count
        counters[self._place * _WORDS + 1 + turn] = own.nbytes
        counters[self._place * _WORDS] = count
        for other in self._others:
            at = other * _WORDS
            for _ in range(_SPINS):
                if counters[at] >= count:
                    break
            else:
                self._wait(other)
            if counters[at + 1 + turn] != own.nbytes:
                self._disagree(own.nbytes)
        return parts

    def _disagree(self, own: int) -> NoReturn:
        """Tell the member whose message is unlike the others', and tell the others of it.

        Raises
        ------
        RuntimeError, ConnectionError
            The one in the member that is in the minority, or of as many gives the least.
        """
        for other in self._others:
            self._wait(other)
        turn = self._count % 2
        given = [self._counters[member * _WORDS + 1 + turn] for member in range(self._size)]
        odd = min(given, key=lambda bytes_: (given.count(bytes_), bytes_))
        if own == odd:
            usual = max(given, key=lambda bytes_: (given.count(bytes_), bytes_))
            raise RuntimeError(f"data size doesn't match: {usual} vs {own}")
        raise ConnectionError(f"member {given.index(odd)} of a group gave {odd} bytes, not {own}")

    def _wait(self, other: int) -> None:
        """Wait for a member that is late, and see whether it lives."""
        end = time.monotonic() + self._timeout
        alive = _descriptor(self._processes[other])
        try:
            while self._counters[other * _WORDS] < self._count:
                gone = alive is None or select.select([alive], [], [], _REST)[0]
                if gone and self._counters[other * _WORDS] < self._count:
                    raise ConnectionError(
                        f"connection closed by member {other} of a group: process "
                        f"{self._processes[other]} has ended"
                    )
                if time.monotonic() > end:
                    raise ConnectionError(
                        f"timed out after {self._timeout:g} s: member {other} of a group did not "
                        "come"
                    )
        finally:
            if alive is not None:
                os.close(alive)


def segment_of(group: Any, size: int, place: int) -> Segment | None:
    """Make the shared memory of a group, if all its members can use some.

    They can if they are on one machine whose processors keep the order of stores, and each has
    processors of its own: one that waits would otherwise keep another from going on. All members
    call this together, and all are given a segment, or none.

    Parameters
    ----------
    group
        The process group; what is needed to begin is gathered over it.
    size, place
        How many members it has, and which this is.
    """
    descriptor = _memory(size)
    try:
        facts = _gathered(group, _facts(descriptor), size)
        if not _fit(facts):
            return None
        processes = [fact[-2] for fact in facts]
        memory = _mapped(f"/proc/{processes[0]}/fd/{facts[0][-1]}", size)
        if not all(mapped for (mapped,) in _gathered(group, [int(memory is not None)], size)):
            return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    timeout = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    return Segment(memory, size, place, processes, timeout) if memory is not None else None


def _memory(size: int) -> int:
    """Memory without a name, of zeros; -1 where there is no such thing."""
    if platform.machine() not in _IN_ORDER or not hasattr(os, "memfd_create"):
        return -1
    descriptor = os.memfd_create(NAME)
    os.truncate(descriptor, bytes_of(size))
    return descriptor


def _mapped(path: str, size: int) -> mmap.mmap | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # of a process that this one may not look into
        return None
    try:
        return mmap.mmap(descriptor, bytes_of(size))
    finally:
        os.close(descriptor)


def _facts(descriptor: int) -> list[int]:
    """What decides: the machine, the processors, the process and its memory."""
    machine, processors = 0, 0
    if descriptor >= 0:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        spaces = [os.readlink(f"/proc/self/ns/{space}") for space in ("net", "pid")]
        digest = hashlib.sha256("|".join([boot, *spaces]).encode()).digest()
        machine = int.from_bytes(digest[:7], "little")
        processors = sum(1 << number for number in os.sched_getaffinity(0))
    mask = [processors >> (63 * word) & (2**63 - 1) for word in range(_MASK)]
    return [machine, *mask, os.getpid(), descriptor]


def _fit(facts: Sequence[Sequence[int]]) -> bool:
    if any(fact[0] != facts[0][0] or fact[-1] < 0 for fact in facts):
        return False
    taken = [0] * _MASK
    for fact in facts:
        own = fact[1 : 1 + _MASK]
        if not any(own) or any(one & other for one, other in zip(own, taken, strict=True)):
            return False
        taken = [one | other for one, other in zip(own, taken, strict=True)]
    return True


def _gathered(group: Any, own: list[int], size: int) -> list[list[int]]:
    tensor = torch.tensor(own)
    whole = torch.empty(size * len(own), dtype=torch.int64)
    group._allgather_base(whole, tensor).wait()
    found: list[list[int]] = whole.view(size, -1).tolist()
    return found


def _descriptor(process: int) -> int | None:
    """One that becomes readable when a process ends; None if it has."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None
