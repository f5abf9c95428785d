"""Small collectives between CPU devices in one hop: all give to all, and each reduces by itself.

A ring passes a message on in ``2 (n - 1)`` hops to reduce it and in ``n - 1`` to gather it, each
of which waits for another process to wake up; gloo does them on threads of its own besides. Of a
message so small that waking up is what takes the time, every member gives its part to every other
and reduces what it has got in the members' order (the all-to-all algorithm of Thakur et al.
2005, "Optimization of Collective Communication Operations in MPICH"). All members then have the
same bits. It goes through memory that they share, where they can, and through gloo otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed._functional_collectives  # registers their operators

from parframe.ops.group_registry import find_group
from parframe.runtime.shared_memory import SLOT, Segment, segment_of

LIMIT = 256 * 1024
"""Bytes that a member sends through gloo to all others at most; more goes round in a ring."""

_TAG = 0x7A11
"""Tells these messages from activations that two ranks send each other over the same group."""

_REDUCE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda parts: torch.sum(parts, 0, dtype=parts.dtype),
    "product": lambda parts: torch.prod(parts, 0, dtype=parts.dtype),
    "max": lambda parts: torch.amax(parts, 0),
    "min": lambda parts: torch.amin(parts, 0),
}
_SEGMENTS: WeakKeyDictionary[Any, Segment | None] = WeakKeyDictionary()
"""The shared memory of groups, None of those that have none."""

_c10d = torch.ops._c10d_functional

_library: Any = torch.library.Library("parframe", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("reduced(Tensor own, str reduction, int size, int place, str group) -> Tensor")
_library.define("gathered(Tensor own, int size, int place, str group) -> Tensor")


def _reduced(own: torch.Tensor, reduction: str, size: int, place: int, group: str) -> torch.Tensor:
    """The reduction of all members' tensors."""
    parts = _exchanged(own, size, place, group)
    if parts is None:
        return _waited(_c10d.all_reduce(own, reduction, group))
    return _REDUCE[reduction](parts)


def _gathered(own: torch.Tensor, size: int, place: int, group: str) -> torch.Tensor:
    """All members' tensors, equal in shape, one after the other along axis 0."""
    parts = _exchanged(own, size, place, group)
    if parts is None:
        return _waited(_c10d.all_gather_into_tensor(own.contiguous(), size, group))
    return torch.cat(parts.unbind(0))


def _waited(sent: torch.Tensor) -> torch.Tensor:
    done: torch.Tensor = _c10d.wait_tensor(sent)
    return done


def _exchanged(own: torch.Tensor, size: int, place: int, group: str) -> torch.Tensor | None:
    """All members' tensors, stacked, to be read at once; None if they are too large for one hop."""
    if own.nbytes > SLOT:
        return None
    members: Any = find_group(group)
    if members not in _SEGMENTS:
        _SEGMENTS[members] = segment_of(members, size, place)
    segment = _SEGMENTS[members]
    if segment is not None:
        return segment.exchange(own)
    return _sent(own, size, place, members) if (size - 1) * own.nbytes <= LIMIT else None


def _sent(own: torch.Tensor, size: int, place: int, members: Any) -> torch.Tensor:
    """Send a member's tensor to all others, and receive theirs."""
    whole = own.new_empty(size, *own.shape)
    parts = whole.unbind(0)
    parts[place].copy_(own)
    works = []
    for step in range(1, size):
        after = (place + step) % size
        works.append(members.send([parts[place]], after, _TAG))
    for step in range(1, size):
        before = (place - step) % size
        works.append(members.recv([parts[before]], before, _TAG))
    for work in reversed(works):  # what comes is later than what goes
        work.wait()
    return whole


_library.impl("reduced", _reduced, "CPU")
_library.impl("gathered", _gathered, "CPU")


def _like(own: torch.Tensor, *rest: object) -> torch.Tensor:
    return own.new_empty(own.shape)


def _wider(own: torch.Tensor, size: int, *rest: object) -> torch.Tensor:
    return own.new_empty(size * own.shape[0], *own.shape[1:])


torch.library.register_fake("parframe::reduced", _like, lib=_library)
torch.library.register_fake("parframe::gathered", _wider, lib=_library)
