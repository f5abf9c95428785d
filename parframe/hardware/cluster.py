"""Clusters: devices in machines of one kind, and the links that a group of ranks spans."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Literal

import attrs

from parframe.errors import ParframeError
from parframe.hardware.machine import Link, Machine

Reach = Literal["alone", "link", "pcie", "network"]
"""Slowest link between two ranks of a group; ``alone`` for one rank."""

MAX_DEVICES = 1 << 20
"""Most devices of a cluster."""


@attrs.frozen
class Span:
    """Links between the ranks of a group.

    A domain is a node, or what a direct link connects that reaches beyond a node.
    """

    reach: Reach
    ranks: int
    domains: int  # the number that the network connects
    ranks_per_domain: int  # those in the largest domain
    inner: Link | None  # the link within a domain; None if each domain has one rank
    outer: Link | None  # the network; None if the group lies within a domain

    @property
    def slowest(self) -> Link | None:
        """Slowest link of the group; None for a group of one rank."""
        return self.outer or self.inner


@attrs.frozen(cache_hash=True)
class Cluster:
    """Devices 0 to ``devices - 1`` in machines of one kind; the last node may be used in part."""

    machine: Machine
    devices: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.devices <= MAX_DEVICES:
            raise ParframeError(
                "hardware",
                f"{self.devices}x{self.machine.name}",
                f"has {self.devices} devices",
                f"give 1 to {MAX_DEVICES:,} devices",
            )
        most = self.machine.per_node if self.machine.network is None else MAX_DEVICES
        if self.devices > most:
            raise ParframeError(
                "hardware",
                f"{self.devices}x{self.machine.name}",
                f"the machine has {most} devices and no network to others",
                f"give 1 to {most} devices, or add `network` to the machine",
            )

    @property
    def nodes(self) -> int:
        """Number of nodes, counting one that is used in part."""
        return -(-self.devices // self.machine.per_node)

    def span(self, ranks: Iterable[int]) -> Span:
        """Return the links that a group of ranks spans.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if a rank is not one of the devices.

        Examples
        --------
        >>> from parframe.hardware import cluster
        >>> two_nodes = cluster("16xH100")
        >>> two_nodes.span(range(8)).reach, two_nodes.span([0, 8]).reach
        ('link', 'network')
        >>> two_nodes.span(range(16)).ranks_per_domain
        8
        """
        return _span(self, tuple(dict.fromkeys(ranks)))


@lru_cache(maxsize=4096)  # a plan has few groups, each used for every batch size and length
def _span(cluster: Cluster, ranks: tuple[int, ...]) -> Span:
    _check(cluster, ranks)
    machine, count = cluster.machine, len(ranks)
    if count <= 1:
        return Span("alone", count, 1, count, None, None)
    domains = {rank // machine.domain_size for rank in ranks} if machine.link else set()
    if len(domains) == 1:
        return Span("link", count, 1, count, machine.link, None)
    if len({rank // machine.per_node for rank in ranks}) == 1:
        return Span("pcie", count, 1, count, machine.pcie, None)
    parts = _domains(machine, ranks)
    largest = max(parts, key=len)
    inner = cluster.span(largest).slowest if len(parts) > 1 else None
    return Span("network", count, len(parts), len(largest), inner, machine.network)


def _domains(machine: Machine, ranks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the ranks of each node, or of each domain of a link that reaches beyond nodes."""
    size = max(machine.domain_size, machine.per_node) if machine.link else machine.per_node
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
