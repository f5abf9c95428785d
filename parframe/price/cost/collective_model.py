"""Model of the times of collectives: start latency, steps, and bytes over a link.

Every constant has a physical meaning: a start latency, a latency for each step in which ranks wait
for each other, and the part of a link's bandwidth that is reached. The constants are fitted.
In a group that spans nodes, transfers within nodes and between them overlap.
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
"""Number of steps of each collective in a group of n ranks, each waiting for the one before."""

WIRE: Mapping[str, Counts] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1,
    "send": lambda n: 1,
}
"""Part of the message that one device sends in a group of n ranks."""

KINDS = tuple(STEPS)


@attrs.frozen
class CustomAllReduce:
    """Constants of an engine's all-reduce in one kernel, in which ranks read each other's memory.

    Parameters
    ----------
    start
        Seconds of the kernel on an architecture with a latency factor of 1.
    per_rank
        Seconds for each further rank.
    share
        Part of the link's bandwidth that is reached.
    two_shot
        Further seconds of the two-shot form, a reduce-scatter and an all-gather; None if the engine
        only has the one-shot form.
    pcie
        Whether it runs between two ranks over PCIe. It never runs between more.
    """

    start: float
    per_rank: float
    share: float
    two_shot: float | None = None
    pcie: bool = False


@attrs.frozen
class ExpertAllToAll:
    """Constants of an all-to-all of experts' tokens in one kernel.

    Parameters
    ----------
    start
        Seconds of the kernel on an architecture with a latency factor of 1.
    share
        Part of a direct link's bandwidth that is reached.
    networks
        Part of a network's bandwidth that is reached, by the kind of network. It does not run on
        others.
    """

    start: float
    share: float
    networks: Mapping[str, float]


@attrs.frozen
class PcieContention:
    """Part of PCIe's bandwidth that a group reaches: ``share * (ranks / 2) ** -exponent``."""

    share: float
    exponent: float


@attrs.frozen
class NetworkConstants:
    """Seconds of a step, and part of the bandwidth reached, on the network between nodes."""

    step: float
    share: float


@attrs.frozen
class CollectiveConstants:
    """Fitted constants of collectives. Times are in seconds.

    Parameters
    ----------
    start
        Start of a collective of NCCL, on an architecture with a latency factor of 1.
    step, step_pcie
        Latency of each step, on a direct link and on PCIe.
    long_start_factor
        Factor of the start in the protocol for long messages.
    short_share, short_share_pcie
        Part of the long protocol's bandwidth that the protocol for short messages reaches.
    link_share
        Part of a direct link's bandwidth that NCCL reaches.
    switch_share
        The same for an all-reduce that a switch sums.
    copy_share
        Part of the memory's bandwidth at which a rank copies its own part.
    latency_factors
        Factor of all starts by architecture, relative to the first one; ``any`` for others.
    custom_all_reduce
        All-reduce kernels of engines, by implementation.
    expert_all_to_all
        All-to-all kernels of engines, by implementation.
    pcie_contention
        Contention on PCIe by machine; ``any`` for machines that were not measured.
    networks
        Networks by machine, and by kind for machines that were not measured.
    launch
        Seconds of the CPU to launch a collective without a CUDA graph.
    """

    start: float
    step: float
    step_pcie: float
    long_start_factor: float
    short_share: float
    short_share_pcie: float
    link_share: float
    switch_share: float
    copy_share: float
    latency_factors: Mapping[str, float]
    custom_all_reduce: Mapping[str, CustomAllReduce]
    expert_all_to_all: Mapping[str, ExpertAllToAll]
    pcie_contention: Mapping[str, PcieContention]
    networks: Mapping[str, NetworkConstants]
    launch: float


@attrs.frozen
class Group:
    """Links of a group of ranks, its device, and the key of its machine."""

    span: Span
    device: Device
    machine: str


def nccl_seconds(kind: str, size: float, group: Group, constants: CollectiveConstants) -> float:
    """Return the seconds of a collective of NCCL or a similar library."""
    span = group.span
    if span.ranks <= 1 or span.slowest is None:
        return 0.0
    if span.outer is not None:
        return _across(kind, size, span.outer, group, constants)
    return _within(kind, size, span.ranks, span.slowest, group, constants)


def custom_all_reduce_seconds(
    own: CustomAllReduce, size: float, group: Group, constants: CollectiveConstants
) -> float | None:
    """Return the seconds of an engine's own all-reduce, or None where its kernel cannot run."""
    span = group.span
    link = span.inner
    if span.outer is not None or link is None or not 2 <= span.ranks <= 8:
        return None
    if span.reach == "pcie" and not (own.pcie and span.ranks == 2 and link.peer):
        return None
    speed = own.share * link.between(span.ranks)
    start = _latency(group, constants) * own.start + own.per_rank * (span.ranks - 1)
    once = start + (span.ranks - 1) * size / speed
    if own.two_shot is None:
        return once
    second = _latency(group, constants) * own.two_shot
    return min(once, start + second + WIRE["all_reduce"](span.ranks) * size / speed)


def expert_all_to_all_seconds(
    own: ExpertAllToAll, size: float, group: Group, constants: CollectiveConstants
) -> float | None:
    """Return the seconds of an all-to-all in one kernel, or None where it cannot run."""
    span = group.span
    if span.reach in ("pcie", "alone"):
        return None
    start = _latency(group, constants) * own.start
    if span.outer is None and span.inner is not None:
        speed = own.share * span.inner.between(span.ranks)
        return start + WIRE["all_to_all"](span.ranks) * size / speed
    if span.outer is None or span.outer.kind not in own.networks:
        return None
    network = own.networks[span.outer.kind] * span.outer.bandwidth
    within = 0.0
    if span.inner is not None:
        within = size / span.domains / (own.share * span.inner.between(span.ranks_per_domain))
    return start + max(WIRE["all_to_all"](span.domains) * size / network, within)


def _within(
    kind: str, size: float, ranks: int, link: Link, group: Group, constants: CollectiveConstants
) -> float:
    """Return the seconds within a node or link domain, by the faster of two protocols."""
    start = _start(STEPS[kind](ranks), link, group, constants)
    speed = _speed(kind, ranks, link, group, constants)
    wire = WIRE[kind](ranks) * size
    early = constants.short_share_pcie if link.shape == "tree" else constants.short_share
    short = start + wire / (early * speed)
    own = size / ranks / (constants.copy_share * group.device.bandwidth) if kind != "send" else 0.0
    return min(short, constants.long_start_factor * start + wire / speed + own)


def _across(
    kind: str, size: float, outer: Link, group: Group, constants: CollectiveConstants
) -> float:
    """Return the seconds between nodes, where each device sends its part of the node's data."""
    span = group.span
    parts, each = span.domains, span.ranks_per_domain
    known = constants.networks
    network = known.get(group.machine) or known.get(outer.kind) or known["Ethernet"]
    start = _latency(group, constants) * constants.start + network.step * STEPS[kind](parts)
    own = kind in ("all_to_all", "send")  # a device sends data of its own, not its node's
    sent = WIRE[kind](parts) * size / (1 if own else each)
    inner = 0.0
    if span.inner is not None:
        start += _start(STEPS[kind](each), span.inner, group, constants)
        start -= _latency(group, constants) * constants.start
        part = size / parts if own else size
        inner = WIRE[kind](each) * part / _speed(kind, each, span.inner, group, constants)
    speed = network.share * outer.bandwidth
    short = start + max(sent / speed, inner) / constants.short_share
    return min(short, constants.long_start_factor * start + max(sent / speed, inner))


def _speed(
    kind: str, ranks: int, link: Link, group: Group, constants: CollectiveConstants
) -> float:
    """Return the bytes per second that one device reaches in a group."""
    if link.shape == "tree":
        known = constants.pcie_contention
        contention = known.get(group.machine, known["any"])
        return contention.share * math.pow(ranks / 2, -contention.exponent) * link.bandwidth
    summed = kind == "all_reduce" and link.reduces and ranks >= min(link.devices, 8) > 2
    return (constants.switch_share if summed else constants.link_share) * link.between(ranks)


def _start(steps: float, link: Link, group: Group, constants: CollectiveConstants) -> float:
    step = constants.step_pcie if link.shape == "tree" else constants.step
    return _latency(group, constants) * (constants.start + step * steps)


def _latency(group: Group, constants: CollectiveConstants) -> float:
    factors = constants.latency_factors
    return factors.get(group.device.architecture, factors["any"])
