"""Creation of the shared memory of a group, where its ranks can use some."""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from parframe.runtime.shared_memory import Segment, segment_bytes

SEGMENT_NAME = "parframe-messages"
"""Name of the memory in the system's list of a process's mappings."""

_ORDERED_STORES = {"x86_64", "AMD64"}
"""Architectures whose processors see each other's stores in program order."""
_MASK_WORDS = 16
"""Words of 63 processors each in which a rank reports its processors."""


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
