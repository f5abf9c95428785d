"""All-reduce and all-gather of small messages between CPU ranks, in one hop.

A ring needs ``2 (n - 1)`` hops for an all-reduce and ``n - 1`` for an all-gather, each of which
waits for another process to wake up; gloo also runs them on threads of its own. For small messages,
where the wake-ups take most of the time, every rank sends its tensor to every other rank and
reduces what it has received in the order of ranks (the all-to-all algorithm of Thakur et al. 2005,
"Optimization of Collective Communication Operations in MPICH"). All ranks then have the same bits.
Messages go through shared memory where ranks can share some, and through gloo otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed._functional_collectives  # registers their operators

from parframe.ops.group_registry import find_group
from parframe.runtime.shared_memory import SLOT_BYTES, Segment, create_segment

GLOO_LIMIT = 256 * 1024
"""Bytes that a rank sends to all others over gloo at most; larger messages use gloo's ring."""

_TAG = 0x7A11
"""Tag of these messages, other than that of activations sent over the same group."""

_REDUCE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda parts: torch.sum(parts, 0, dtype=parts.dtype),
    "product": lambda parts: torch.prod(parts, 0, dtype=parts.dtype),
    "max": lambda parts: torch.amax(parts, 0),
    "min": lambda parts: torch.amin(parts, 0),
}
_SEGMENTS: WeakKeyDictionary[Any, Segment | None] = WeakKeyDictionary()
"""Shared memory of each group; None for groups that cannot share memory."""

_c10d = torch.ops._c10d_functional

_library: Any = torch.library.Library("parframe", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    "cpu_all_reduce(Tensor own, str reduction, int size, int rank, str group) -> Tensor"
)
_library.define("cpu_all_gather(Tensor own, int size, int rank, str group) -> Tensor")


def _all_reduce(
    own: torch.Tensor, reduction: str, size: int, rank: int, group: str
) -> torch.Tensor:
    """Reduce the tensors of all ranks of a group."""
    parts = _stack_tensors(own, size, rank, group)
    if parts is None:
        return _wait(_c10d.all_reduce(own, reduction, group))
    return _REDUCE[reduction](parts)


def _all_gather(own: torch.Tensor, size: int, rank: int, group: str) -> torch.Tensor:
    """Concatenate the tensors of all ranks, which have equal shapes, along dim 0."""
    parts = _stack_tensors(own, size, rank, group)
    if parts is None:
        return _wait(_c10d.all_gather_into_tensor(own.contiguous(), size, group))
    return torch.cat(parts.unbind(0))


def _wait(pending: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _c10d.wait_tensor(pending)
    return result


def _stack_tensors(own: torch.Tensor, size: int, rank: int, group: str) -> torch.Tensor | None:
    """Stack the tensors of all ranks in one hop; return None if they are too large for it.

    The result is valid until the next call but one.
    """
    if own.nbytes > SLOT_BYTES:
        return None
    process_group: Any = find_group(group)
    if process_group not in _SEGMENTS:
        _SEGMENTS[process_group] = create_segment(process_group, size, rank)
    segment = _SEGMENTS[process_group]
    if segment is not None:
        return segment.all_gather(own)
    if (size - 1) * own.nbytes > GLOO_LIMIT:
        return None
    return _stack_over_gloo(own, size, rank, process_group)


def _stack_over_gloo(own: torch.Tensor, size: int, rank: int, process_group: Any) -> torch.Tensor:
    """Send this rank's tensor to all others over gloo, and receive theirs."""
    whole = own.new_empty(size, *own.shape)
    parts = whole.unbind(0)
    parts[rank].copy_(own)
    works = []
    for step in range(1, size):
        after = (rank + step) % size
        works.append(process_group.send([parts[rank]], after, _TAG))
    for step in range(1, size):
        before = (rank - step) % size
        works.append(process_group.recv([parts[before]], before, _TAG))
    for work in reversed(works):  # receives complete later than sends
        work.wait()
    return whole


_library.impl("cpu_all_reduce", _all_reduce, "CPU")
_library.impl("cpu_all_gather", _all_gather, "CPU")


def _all_reduce_shape(own: torch.Tensor, *rest: object) -> torch.Tensor:
    return own.new_empty(own.shape)


def _all_gather_shape(own: torch.Tensor, size: int, *rest: object) -> torch.Tensor:
    return own.new_empty(size * own.shape[0], *own.shape[1:])


torch.library.register_fake("parframe::cpu_all_reduce", _all_reduce_shape, lib=_library)
torch.library.register_fake("parframe::cpu_all_gather", _all_gather_shape, lib=_library)
