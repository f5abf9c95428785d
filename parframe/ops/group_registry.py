"""Registry of process groups by name, as operators in a graph take them."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch
import torch.distributed as dist

from parframe.errors import ParframeError

_KNOWN: WeakValueDictionary[str, dist.ProcessGroup] = WeakValueDictionary()


def register_group(group: dist.ProcessGroup) -> str:
    """Make a group known to operators, and return its name."""
    name: str = group.group_name
    _KNOWN[name] = group
    return name


def is_registered(group: dist.ProcessGroup) -> bool:
    """Return whether operators find a group by its name."""
    return _KNOWN.get(group.group_name) is group


def find_group(name: str) -> dist.ProcessGroup:
    """Return the group of a name, which was registered and has not been destroyed."""
    if name not in _KNOWN:
        raise ParframeError(
            "run", f"group {name!r}", "there is no such process group", "make the module again"
        )
    return _KNOWN[name]


def transfer_device(device: torch.device) -> torch.device:
    """Return the device on which tensors must lie to be sent: the CPU where gloo sends them."""
    if device.type == "cpu":
        return device
    backends = str(dist.get_backend_config()) if dist.is_initialized() else ""
    return torch.device("cpu") if f"{device.type}:gloo" in backends else device
