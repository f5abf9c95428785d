"""A number of devices in machines of one kind, and the links that a group of ranks spans."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Literal

import attrs

from parframe.errors import ParframeError
from parframe.hardware.machine import Link, Machine

Reach = Literal["alone", "link", "pcie", "network"]
"""What the farthest two ranks of a group have between them."""

MOST = 1 << 20
"""More devices are taken for a mistake."""


@attrs.frozen
class Span:
    """What a group of ranks has between its members.

    Parameters
    ----------
    reach
        What joins the farthest two: ``alone`` for one rank, the direct ``link``, the node's
        ``pcie``, or the ``network``.
    ranks
        How many ranks the group has.
    islands
        How many parts it has that the network joins: nodes, or domains of a direct link that
        reaches beyond them.
    per_island
        Ranks in the part that has the most.
    inner
        What joins the ranks of a part; None where each has one.
    outer
        The network, where the group spans it.
    """

    reach: Reach
    ranks: int
    islands: int
    per_island: int
    inner: Link | None
    outer: Link | None

    @property
    def slowest(self) -> Link | None:
        """The link that holds the group up; None for a rank alone."""
        return self.outer or self.inner


@attrs.frozen(cache_hash=True)
class Cluster:
    """Devices 0 to ``devices - 1`` in machines of one kind, node by node.

    Parameters
    ----------
    machine
        The device in its box.
    devices
        How many; the last node may be part of one.
    """

    machine: Machine
    devices: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.devices <= MOST:
            raise ParframeError(
                "hardware",
                f"{self.devices}x{self.machine.name}",
                f"{self.devices} devices",
                f"give 1 to {MOST:,} devices",
            )
        most = self.machine.per_node if self.machine.network is None else MOST
        if self.devices > most:
            raise ParframeError(
                "hardware",
                f"{self.devices}x{self.machine.name}",
                f"the box has {most} devices, and nothing is known of a network to another",
                f"give 1 to {most} devices, or the machine's `network`",
            )

    @property
    def nodes(self) -> int:
        """How many nodes the devices fill or begin."""
        return -(-self.devices // self.machine.per_node)

    def span(self, members: Iterable[int]) -> Span:
        """Tell what joins a group of ranks.

        Parameters
        ----------
        members
            Ranks, as ``parframe.price.work.work.Communication`` has them.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if a rank is not one of the devices.

        Examples
        --------
        >>> from parframe.hardware import cluster
        >>> boxes = cluster("16xH100")
        >>> boxes.span(range(8)).reach, boxes.span([0, 8]).reach, boxes.span(range(16)).per_island
        ('link', 'network', 8)
        """
        return _span(self, tuple(members))


@lru_cache(maxsize=4096)  # a plan has few groups, which are asked about for every batch and length
def _span(cluster: Cluster, members: tuple[int, ...]) -> Span:
    ranks = tuple(dict.fromkeys(members))
    _check(cluster, ranks)
    machine, count = cluster.machine, len(ranks)
    if count <= 1:
        return Span("alone", count, 1, count, None, None)
    domains = {rank // machine.island for rank in ranks} if machine.link else set()
    if len(domains) == 1:
        return Span("link", count, 1, count, machine.link, None)
    if len({rank // machine.per_node for rank in ranks}) == 1:
        return Span("pcie", count, 1, count, machine.pcie, None)
    parts = _parts(machine, ranks)
    widest = max(parts, key=len)
    inner = cluster.span(widest).slowest if len(parts) > 1 else None
    return Span("network", count, len(parts), len(widest), inner, machine.network)


def _parts(machine: Machine, ranks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ranks in nodes, or in the domains of a direct link that reaches beyond nodes."""
    size = max(machine.island, machine.per_node) if machine.link else machine.per_node
    keyed = groupby(sorted(ranks), key=lambda rank: rank // size)
    return [tuple(part) for _, part in keyed]


def _check(cluster: Cluster, ranks: tuple[int, ...]) -> None:
    for rank in ranks:
        if not 0 <= rank < cluster.devices:
            raise ParframeError(
                "mesh",
                f"rank {rank}",
                f"the cluster has {cluster.devices} devices",
                f"give ranks from 0 to {cluster.devices - 1}",
            )
