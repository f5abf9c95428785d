"""The process groups of a plan's communications, by name."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch.distributed as dist

from parframe.errors import ParframeError

_KNOWN: WeakValueDictionary[str, dist.ProcessGroup] = WeakValueDictionary()


def named(group: dist.ProcessGroup) -> str:
    """The name under which operators find a group."""
    name: str = group.group_name
    _KNOWN[name] = group
    return name


def is_named(group: dist.ProcessGroup) -> bool:
    """Whether operators find a group."""
    return _KNOWN.get(group.group_name) is group


def group_of(name: str) -> dist.ProcessGroup:
    """The group of a name.

    Raises
    ------
    ParframeError
        Of kind ``run``, if it has been destroyed or was never named.
    """
    if name not in _KNOWN:
        raise ParframeError(
            "run", f"group {name!r}", "there is no such process group", "make the module again"
        )
    return _KNOWN[name]
