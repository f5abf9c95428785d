"""Machines: nodes with several devices, their links and the network between nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from parframe.hardware.device import Device
from parframe.hardware.measurements import MeasuredCollective

Shape = Literal["switch", "mesh", "pairs", "tree", "network"]
"""Topology of a link, as the head of ``data/machines.toml`` describes it."""


@attrs.frozen(cache_hash=True)
class Link:
    """Link between devices.

    Parameters
    ----------
    kind
        Name, such as ``NVLink 4`` or ``InfiniBand``.
    shape
        Topology. ``switch``: any group has the whole bandwidth. ``mesh``: one wire between every
        two devices, and a group uses the wires between its ranks. ``pairs``: two devices only.
        ``tree``: PCIe, through its switches and the CPU. ``network``: between nodes.
    devices
        Number of devices that it connects.
    bandwidth
        Bytes per second from one device in each direction, with all wires in use.
    reduces
        Whether the switch can sum (NVLink SHARP).
    peer
        Whether a device can write to another device's memory without the CPU.
    """

    kind: str
    shape: Shape
    devices: int
    bandwidth: float
    reduces: bool = False
    peer: bool = True

    def between(self, ranks: int) -> float:
        """Return the bytes per second of one device, each direction, in a group of ``ranks``."""
        if self.shape == "mesh" and self.devices > 2:
            return self.bandwidth * (min(ranks, self.devices) - 1) / (self.devices - 1)
        return self.bandwidth


@attrs.frozen(cache_hash=True)
class Machine:
    """Machine with one or more devices, and the network that connects it with others.

    Parameters
    ----------
    key
        Key in the catalog.
    name
        Name in tables.
    device
        Device of the machine.
    per_node
        Devices of a node.
    link
        Direct link between devices, or None. It may reach beyond a node.
    pcie
        PCIe of a node, which connects all of its devices.
    network
        Network between nodes, with the bandwidth of one device; None for a single node.
    notes
        Remarks and sources by the key of a figure.
    alone
        Device while the other devices of its node are idle; None if it is as fast as when they
        are busy, as it is where devices share neither memory nor power.
    divided
        Number of devices that the node's processors are divided into, if devices are shares of a
        CPU: the figures hold for this number only. None for devices that are not shared.
    collectives
        Times of communication that were measured within a node of this machine.
    engines
        Constants of engines that were measured on this machine: by name, the fields of
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
    collectives: tuple[MeasuredCollective, ...] = attrs.field(default=(), repr=False)
    engines: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def within(self) -> Link:
        """Fastest link within a node."""
        return self.link or self.pcie

    @property
    def domain_size(self) -> int:
        """Number of devices that the fastest link connects."""
        return self.within.devices
