"""A device in a box: what joins the devices of a node, and the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from parframe.hardware.device import Device
from parframe.hardware.measurements import Exchanged

Shape = Literal["switch", "mesh", "pairs", "tree", "network"]
"""How a link joins devices; README of the catalogue is the head of ``data/machines.toml``."""


@attrs.frozen(cache_hash=True)
class Link:
    """What joins devices.

    Parameters
    ----------
    kind
        Its name, as ``NVLink 4`` or ``InfiniBand``.
    shape
        ``switch``: any group has the whole bandwidth. ``mesh``: a wire between every two, of
        which a group uses those between its members. ``pairs``: two devices alone. ``tree``: PCIe,
        by way of its switches and the CPU. ``network``: between nodes.
    devices
        How many devices it joins.
    bandwidth
        Bytes a second from one device in each direction, with all wires in use.
    reduces
        Whether the switch can sum (NVLink SHARP).
    peer
        Whether a device can write to another one's memory without the host.
    """

    kind: str
    shape: Shape
    devices: int
    bandwidth: float
    reduces: bool = False
    peer: bool = True

    def between(self, ranks: int) -> float:
        """Bytes a second of one device in each direction within a group of so many ranks."""
        if self.shape == "mesh" and self.devices > 2:
            return self.bandwidth * (min(ranks, self.devices) - 1) / (self.devices - 1)
        return self.bandwidth


@attrs.frozen(cache_hash=True)
class Machine:
    """A device in a box.

    Parameters
    ----------
    key
        Its name in the catalogue.
    name
        Its name in tables.
    device
        What is in the box.
    per_node
        Devices that share a node, its host and PCIe.
    link
        What joins devices directly, if anything does; it may reach beyond a node.
    pcie
        What joins all devices of a node.
    network
        What joins nodes: bandwidth is that of one device; None for a box by itself.
    notes
        Where figures come from and what they mean, by their key.
    alone
        The device while the others of its node have nothing to do; None where that makes no
        difference, as where devices share neither memory nor power.
    divided
        Where devices are shares of one box's processors: into how many it is divided, for which
        alone the figures hold. None where devices are what they are, however many are used.
    exchanges
        What was measured of exchanges within a node of this very machine.
    engines
        What was measured of engines on it: by name, the fields of
        `parframe.price.serving.engines.Engine`.
    """

    key: str
    name: str
    device: Device
    per_node: int
    link: Link | None
    pcie: Link
    network: Link | None
    notes: Mapping[str, str] = attrs.field(factory=dict, hash=False, eq=False)
    alone: Device | None = attrs.field(default=None, repr=False)
    divided: int | None = None
    exchanges: tuple[Exchanged, ...] = attrs.field(default=(), repr=False)
    engines: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def within(self) -> Link:
        """The fastest link that more than one device has."""
        return self.link or self.pcie

    @property
    def island(self) -> int:
        """How many devices the fastest link joins."""
        return self.within.devices
