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

    Topologies: in a ``switch`` any group has the whole bandwidth. A ``mesh`` has one wire between
    every two devices, and a group uses the wires between its ranks. ``pairs`` connect two devices
    only. A ``tree`` is PCIe, through its switches and the CPU. A ``network`` is between nodes.
    """

    kind: str  # such as ``NVLink 4`` or ``InfiniBand``
    shape: Shape
    devices: int  # the number that it connects
    bandwidth: float  # bytes per second of a device in each direction, with all wires in use
    reduces: bool = False  # whether the switch can sum (NVLink SHARP)
    peer: bool = True  # whether a device can write to another one's memory without the CPU

    def between(self, ranks: int) -> float:
        """Return the bytes per second of one device, each direction, in a group of ``ranks``."""
        if self.shape == "mesh" and self.devices > 2:
            return self.bandwidth * (min(ranks, self.devices) - 1) / (self.devices - 1)
        return self.bandwidth


@attrs.frozen(cache_hash=True)
class Machine:
    """Machine with one or more devices, and the network that connects it with others.

    If devices are shares of a CPU, the figures hold only for the number of devices that the node's
    processors are divided into. Where devices share memory or power, a device is faster while the
    others of its node are idle.
    """

    key: str  # in the catalog
    name: str  # in tables
    device: Device
    per_node: int
    link: Link | None  # direct link between devices, which may reach beyond a node
    pcie: Link  # PCIe of a node, which connects all of its devices
    network: Link | None  # with the bandwidth of one device; None for a single node
    notes: Mapping[str, str] = attrs.field(factory=dict, hash=False, eq=False)  # by a figure's key
    alone: Device | None = attrs.field(default=None, repr=False)  # while the others are idle
    divided: int | None = None  # the number of shares of a CPU
    collectives: tuple[MeasuredCollective, ...] = attrs.field(default=(), repr=False)
    # constants measured with engines, by name: fields of `parframe.price.serving.engines.Engine`
    engines: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def within(self) -> Link:
        """Fastest link within a node."""
        return self.link or self.pcie

    @property
    def domain_size(self) -> int:
        """Number of devices that the fastest link connects."""
        return self.within.devices
