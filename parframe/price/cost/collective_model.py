"""How long collectives take by what they do to a link: steps, bytes on the wire, and start.

Every term is physical: a start, a cost for each step in which ranks wait for each other, bytes
that one device sends over the share of a link's bandwidth that is reached. The numbers are `Terms`,
which are fitted; a group that spans nodes sends within them and between them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs

from parframe.hardware import Device, Link, Span

Counts = Callable[[int], float]

STEPS: Mapping[str, Counts] = {
    "all_reduce": lambda n: 2 * (n - 1),
    "all_gather": lambda n: n - 1,
    "reduce_scatter": lambda n: n - 1,
    "all_to_all": lambda n: 2,
    "broadcast": lambda n: n - 1,
    "send": lambda n: 1,
}
"""In how many steps a group of n ranks does each collective, one waiting for another."""

WIRE: Mapping[str, Counts] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1,
    "send": lambda n: 1,
}
"""The part of the message that one device sends."""

KINDS = tuple(STEPS)


@attrs.frozen
class Direct:
    """An all-reduce in one kernel, in which every rank reads what the others have.

    Parameters
    ----------
    start
        Seconds of the kernel on an architecture with a latency of 1.
    rank
        Seconds for each further rank.
    share
        The part of a link's bandwidth that is reached.
    second
        Seconds more if ranks reduce a part each and then gather; None where it is never done.
    pcie
        Whether it is done between two ranks over PCIe; never between more.
    """

    start: float
    rank: float
    share: float
    second: float | None = None
    pcie: bool = False


@attrs.frozen
class Sent:
    """An all-to-all of experts' tokens in one kernel.

    Parameters
    ----------
    start
        Seconds of the kernel on an architecture with a latency of 1.
    share
        The part of a direct link's bandwidth that is reached.
    wide
        The part of a network's bandwidth that is reached, by its kind; it cannot run over others.
    """

    start: float
    share: float
    wide: Mapping[str, float]


@attrs.frozen
class Crowd:
    """How much of PCIe's bandwidth groups reach: ``share * (ranks / 2) ** -crowding``."""

    share: float
    crowding: float


@attrs.frozen
class Wide:
    """What the network between nodes costs: seconds a step, and the share of bandwidth reached."""

    step: float
    share: float


@attrs.frozen
class Terms:
    """The fitted numbers of exchanges; times in seconds.

    Parameters
    ----------
    start
        Of a collective of NCCL, on an architecture with a latency of 1.
    step, step_pcie
        For each step, over a direct link and over PCIe.
    later
        How much more the start is in the protocol for long messages.
    early, early_pcie
        The part of the long protocol's bandwidth that the one for short messages has.
    share
        The part of a direct link's bandwidth that NCCL reaches.
    switch
        The same for an all-reduce that a switch sums.
    copy
        The part of the memory's bandwidth at which a rank moves its own part.
    latency
        By architecture: how much slower starts are than on the first one.
    direct
        All-reduces of engines' own, by implementation.
    sent
        All-to-alls of engines' own, by implementation.
    crowds
        PCIe by machine; ``any`` for those that were not measured.
    wide
        Networks by machine, and by kind for machines that were not measured.
    host
        Seconds of the host for a collective that is launched without a graph.
    """

    start: float
    step: float
    step_pcie: float
    later: float
    early: float
    early_pcie: float
    share: float
    switch: float
    copy: float
    latency: Mapping[str, float]
    direct: Mapping[str, Direct]
    sent: Mapping[str, Sent]
    crowds: Mapping[str, Crowd]
    wide: Mapping[str, Wide]
    host: float


@attrs.frozen
class Group:
    """Who exchanges: the links of a group, the device, and the machine's key."""

    span: Span
    device: Device
    machine: str


def nccl(kind: str, size: float, group: Group, terms: Terms) -> float:
    """Seconds of a collective of NCCL or its like."""
    span = group.span
    if span.ranks <= 1 or span.slowest is None:
        return 0.0
    if span.outer is not None:
        return _across(kind, size, span.outer, group, terms)
    return _within(kind, size, span.ranks, span.slowest, group, terms)


def direct(own: Direct, size: float, group: Group, terms: Terms) -> float | None:
    """Seconds of an engine's own all-reduce; None where its kernel cannot run."""
    span = group.span
    link = span.inner
    if span.outer is not None or link is None or not 2 <= span.ranks <= 8:
        return None
    if span.reach == "pcie" and not (own.pcie and span.ranks == 2 and link.peer):
        return None
    speed = own.share * link.between(span.ranks)
    start = _latency(group, terms) * own.start + own.rank * (span.ranks - 1)
    once = start + (span.ranks - 1) * size / speed
    if own.second is None:
        return once
    second = _latency(group, terms) * own.second
    return min(once, start + second + WIRE["all_reduce"](span.ranks) * size / speed)


def sent(own: Sent, size: float, group: Group, terms: Terms) -> float | None:
    """Seconds of an all-to-all in one kernel; None where its kernel cannot run."""
    span = group.span
    if span.reach in ("pcie", "alone"):
        return None
    if span.outer is None and span.inner is not None:
        speed = own.share * span.inner.between(span.ranks)
        return _latency(group, terms) * own.start + WIRE["all_to_all"](span.ranks) * size / speed
    if span.outer is None or span.outer.kind not in own.wide:
        return None
    across = (
        WIRE["all_to_all"](span.domains) * size / (own.wide[span.outer.kind] * span.outer.bandwidth)
    )
    within = (
        size / span.domains / (own.share * span.inner.between(span.ranks_per_domain))
        if span.inner
        else 0.0
    )
    return _latency(group, terms) * own.start + max(across, within)


def _within(kind: str, size: float, ranks: int, link: Link, group: Group, terms: Terms) -> float:
    """Within a node, or a domain of a direct link: the better of two protocols."""
    start = _start(STEPS[kind](ranks), link, group, terms)
    speed = _speed(kind, ranks, link, group, terms)
    wire = WIRE[kind](ranks) * size
    early = terms.early_pcie if link.shape == "tree" else terms.early
    short = start + wire / (early * speed)
    own = size / ranks / (terms.copy * group.device.bandwidth) if kind != "send" else 0.0
    return min(short, terms.later * start + wire / speed + own)


def _across(kind: str, size: float, outer: Link, group: Group, terms: Terms) -> float:
    """Between nodes: each device sends its part of what its node has, while nodes do theirs."""
    span = group.span
    parts, each = span.domains, span.ranks_per_domain
    wide = wide_of(outer, group.machine, terms)
    start = _latency(group, terms) * terms.start + wide.step * STEPS[kind](parts)
    own = kind in ("all_to_all", "send")  # what a device sends is its own, not its node's
    sent = WIRE[kind](parts) * size / (1 if own else each)
    inner = 0.0
    if span.inner is not None:
        start += _start(STEPS[kind](each), span.inner, group, terms)
        start -= _latency(group, terms) * terms.start
        part = size / parts if own else size
        inner = WIRE[kind](each) * part / _speed(kind, each, span.inner, group, terms)
    speed = wide.share * outer.bandwidth
    short = start + max(sent / speed, inner) / terms.early
    return min(short, terms.later * start + max(sent / speed, inner))


def wide_of(link: Link, machine: str, terms: Terms) -> Wide:
    """The terms of a machine's network: its own, those of its kind, or those of Ethernet."""
    found = terms.wide.get(machine) or terms.wide.get(link.kind)
    return found or terms.wide["Ethernet"]


def crowd_of(machine: str, terms: Terms) -> Crowd:
    """The terms of a machine's PCIe."""
    return terms.crowds.get(machine, terms.crowds["any"])


def _speed(kind: str, ranks: int, link: Link, group: Group, terms: Terms) -> float:
    """Bytes a second that one device reaches in a group."""
    if link.shape == "tree":
        crowd = crowd_of(group.machine, terms)
        return crowd.share * math.pow(ranks / 2, -crowd.crowding) * link.bandwidth
    summed = kind == "all_reduce" and link.reduces and ranks >= min(link.devices, 8) > 2
    return (terms.switch if summed else terms.share) * link.between(ranks)


def _start(steps: float, link: Link, group: Group, terms: Terms) -> float:
    step = terms.step_pcie if link.shape == "tree" else terms.step
    return _latency(group, terms) * (terms.start + step * steps)


def _latency(group: Group, terms: Terms) -> float:
    return terms.latency.get(group.device.architecture, terms.latency["any"])
