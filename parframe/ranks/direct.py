"""Small collectives between CPU devices in one hop: all send to all, and each reduces by itself.

A ring passes a message on in ``2 (n - 1)`` hops to reduce it and in ``n - 1`` to gather it, each
of which waits for another process to wake up; gloo does them on threads of its own besides. Of a
message so small that waking up is what takes the time, every member sends its part to every other
and reduces what it has received in the members' order (the all-to-all algorithm of Thakur et al.
2005, "Optimization of Collective Communication Operations in MPICH"). All members then have the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed._functional_collectives  # registers their operators

from parframe.ranks.named import group_of

LIMIT = 256 * 1024
"""Bytes that a member sends to all others at most; more goes round in a ring."""

_TAG = 0x7A11
"""Tells these messages from activations that two ranks send each other over the same group."""

_REDUCE: Mapping[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "sum": torch.sum, "product": torch.prod, "max": torch.amax, "min": torch.amin,
}  # fmt: skip
_c10d = torch.ops._c10d_functional

_library: Any = torch.library.Library("parframe", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("reduced(Tensor own, str reduction, int size, int place, str group) -> Tensor")
_library.define("gathered(Tensor own, int size, int place, str group) -> Tensor")


def _reduced(own: torch.Tensor, reduction: str, size: int, place: int, group: str) -> torch.Tensor:
    """The reduction of all members' tensors."""
    if not _is_small(own, size):
        return _waited(_c10d.all_reduce(own, reduction, group))
    whole = own.new_empty(size, *own.shape)
    _exchange(whole, own, place, group)
    return _REDUCE[reduction](whole, 0)


def _gathered(own: torch.Tensor, size: int, place: int, group: str) -> torch.Tensor:
    """All members' tensors, equal in shape, one after the other along axis 0."""
    if not _is_small(own, size):
        return _waited(_c10d.all_gather_into_tensor(own.contiguous(), size, group))
    whole = own.new_empty(size * own.shape[0], *own.shape[1:])
    _exchange(whole.view(size, *own.shape), own, place, group)
    return whole


def _waited(sent: torch.Tensor) -> torch.Tensor:
    done: torch.Tensor = _c10d.wait_tensor(sent)
    return done


def _is_small(own: torch.Tensor, size: int) -> bool:
    return (size - 1) * own.nbytes <= LIMIT


def _exchange(whole: torch.Tensor, own: torch.Tensor, place: int, group: str) -> None:
    """Put every member's tensor into its place of the whole."""
    members: Any = group_of(group)
    parts = whole.unbind(0)
    parts[place].copy_(own)
    works = []
    for step in range(1, len(parts)):
        after = (place + step) % len(parts)
        works.append(members.send([parts[place]], after, _TAG))
    for step in range(1, len(parts)):
        before = (place - step) % len(parts)
        works.append(members.recv([parts[before]], before, _TAG))
    for work in reversed(works):  # what comes is later than what goes
        work.wait()


_library.impl("reduced", _reduced, "CPU")
_library.impl("gathered", _gathered, "CPU")


def _like(own: torch.Tensor, *rest: object) -> torch.Tensor:
    return own.new_empty(own.shape)


def _wider(own: torch.Tensor, size: int, *rest: object) -> torch.Tensor:
    return own.new_empty(size * own.shape[0], *own.shape[1:])


torch.library.register_fake("parframe::reduced", _like, lib=_library)
torch.library.register_fake("parframe::gathered", _wider, lib=_library)
