"""The time of an exchange on the links that its group spans, with how far it may be off."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.hardware import Cluster
from parframe.price.cost.collective_model import (
    KINDS,
    STEPS,
    WIRE,
    Crowd,
    Direct,
    Group,
    Sent,
    Terms,
    Wide,
    direct,
    nccl,
    sent,
)
from parframe.price.cost.dtypes import SIXTEEN
from parframe.price.cost.estimate import Estimate
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Communication, Step

EAGER = "_eager"
"""Ends the name of an implementation that the host launches without a graph."""

OTHER_RANKS = 0.3
"""The further spread of an exchange that was measured among another number of ranks."""

_ENGINES = {"vllm": "vllm", "sglang": "vllm", "tensorrt": "trtllm", "trtllm": "trtllm"}


@attrs.frozen
class Spreads:
    """How far off predicted exchanges are: standard deviations of the natural logarithm.

    Parameters
    ----------
    measured
        On links that were measured, by implementation.
    link
        Over a direct link of another device than those that were measured.
    pcie
        Over the PCIe of another machine than those.
    network
        Over the network of a measured machine, or one of a measured kind.
    other_network
        Over another one.
    wider
        How much more for a group of more ranks on one link than were measured.
    """

    measured: Mapping[str, float]
    link: float
    pcie: float
    network: Mapping[str, float]
    other_network: float
    wider: float


@attrs.frozen
class Fitted:
    """What is known of exchanges.

    Parameters
    ----------
    terms
        The numbers of their times.
    spreads
        How far off they are.
    devices
        Devices whose direct link or PCIe was measured.
    ranks
        The most ranks in a measured group within a node.
    provenance
        The tables they come from and how many rows.
    """

    terms: Terms
    spreads: Spreads
    devices: tuple[str, ...]
    ranks: int
    provenance: Mapping[str, int]


def communication_time(
    exchange: Communication,
    message: float,
    cluster: Cluster,
    implementation: str = "nccl",
    fitted: Fitted | None = None,
) -> Estimate:
    """Predict the time of one exchange of its group, alone on its links.

    Parameters
    ----------
    exchange
        Its kind and members; ``count`` is not applied.
    message
        Bytes of the whole message, in the sense of `Communication.elements`.
    cluster
        Where the ranks are.
    implementation
        ``nccl``, or an engine's own for what it has of its own, and nccl for the rest: ``vllm``,
        ``trtllm`` (all-reduces in one kernel), ``deepep`` and ``deepep_low_latency`` (all-to-alls
        of experts); with ``_eager`` at its end, launched without a graph, which takes the host's
        time at least.
    fitted
        Other numbers than those that ship.

    Returns
    -------
    Estimate
        Seconds; ``why`` says what of it was never measured.

    Raises
    ------
    ParframeError
        Of kind `plan` for an unknown kind of exchange, `usage` for an unknown implementation,
        `mesh` if a rank is not in the cluster.
    """
    seconds, spread, why = _by_message(exchange, cluster, implementation, fitted or shipped())
    return Estimate(seconds(message), spread, why) if message > 0 else Estimate(0.0)


def communication_timer(
    exchange: Communication, cluster: Cluster, implementation: str = "nccl", width: float = SIXTEEN
) -> Timer:
    """Return what tells how long all ``count`` of an exchange take in a step.

    Parameters
    ----------
    exchange, cluster, implementation
        As for `communication_time`, which raises the same.
    width
        Bytes of an element.
    """
    of, spread, why = _by_message(exchange, cluster, implementation, shipped())

    def seconds(step: Step) -> float:
        times = step.sequences * step.new_tokens if exchange.per == "token" else step.sequences
        return of(exchange.elements * times * exchange.share * width) * exchange.count

    return Timer(seconds, spread, why)


def _by_message(
    exchange: Communication, cluster: Cluster, implementation: str, fitted: Fitted
) -> tuple[Callable[[float], float], float, tuple[str, ...]]:
    """The seconds of one exchange by the bytes of its message, their spread, and why."""
    kind = exchange.kind
    if kind not in KINDS:
        what = f"is no kind of exchange that has a price{did_you_mean(kind, KINDS)}"
        raise ParframeError("plan", repr(kind), what, f"use one of {', '.join(KINDS)}")
    check_implementation(implementation, fitted)
    span = cluster.span(exchange.ranks)
    if span.ranks <= 1:
        return lambda message: 0.0, 0.0, ()
    own = _measured(kind, cluster, span.ranks) if span.outer is None else None
    if own is not None:
        return own
    group = Group(span, cluster.machine.device, cluster.machine.key)

    def seconds(message: float) -> float:
        if message <= 0:
            return 0.0
        return seconds_of(kind, message, group, implementation, fitted.terms)

    return seconds, *_doubt(kind, group, implementation, fitted)


def _measured(
    kind: str, cluster: Cluster, ranks: int
) -> tuple[Callable[[float], float], float, tuple[str, ...]] | None:
    """The same where it was measured in this very box; among other ranks, scaled."""
    rows = [one for one in cluster.machine.collectives if one.kind == kind]
    if not rows:
        return None
    row = min(rows, key=lambda one: (abs(math.log(one.ranks / ranks)), one.ranks))
    if row.ranks == ranks:
        return row.time, row.log_std, ()
    start = row.time(0.0)
    steps = STEPS[kind](ranks) / STEPS[kind](row.ranks)
    wire = WIRE[kind](ranks) / WIRE[kind](row.ranks)
    why = f"{kind} was measured among {row.ranks} ranks, not {ranks}"
    seconds = lambda message: start * steps + (row.time(message) - start) * wire  # noqa: E731
    return seconds, math.hypot(row.log_std, OTHER_RANKS), (why,)


def seconds_of(kind: str, message: float, group: Group, implementation: str, terms: Terms) -> float:
    """Seconds of an exchange: by the engine's own kernel where it has one.

    Engines choose their own all-reduce only where it is faster, which depends on the length.
    """
    name = implementation.removesuffix(EAGER)
    seconds = nccl(kind, message, group, terms)
    if kind == "all_reduce" and name in terms.direct:
        own = direct(terms.direct[name], message, group, terms)
        seconds = seconds if own is None else min(seconds, own)
    elif kind == "all_to_all" and name in terms.sent:
        own = sent(terms.sent[name], message, group, terms)
        seconds = seconds if own is None else own
    return max(seconds, terms.host) if implementation.endswith(EAGER) else seconds


def implementation_of(framework: str) -> str:
    """The implementation of exchanges that a framework uses, by any spelling of its name.

    Examples
    --------
    >>> implementation_of("TensorRT-LLM 0.17"), implementation_of("gpt-fast (PyTorch)")
    ('trtllm', 'nccl')
    """
    word = framework.casefold().replace("-", "").replace(" ", "")
    return next((own for name, own in _ENGINES.items() if name in word), "nccl")


def implementations(fitted: Fitted | None = None) -> tuple[str, ...]:
    """Every implementation that has a price."""
    terms = (fitted or shipped()).terms
    return tuple(dict.fromkeys(("nccl", *terms.direct, *terms.sent)))


def check_implementation(name: str, fitted: Fitted) -> None:
    """Refuse an implementation that has no price."""
    known = implementations(fitted)
    if name.removesuffix(EAGER) not in known:
        raise ParframeError(
            "usage",
            f"implementation {name!r}",
            f"has no price{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )


@cache
def shipped() -> Fitted:
    """The numbers that come with parframe."""
    text = (files("parframe.price") / "data" / "collectives.json").read_text(encoding="utf-8")
    return read(json.loads(text))


def read(data: Mapping[str, Any]) -> Fitted:
    """Read what `write` gave."""
    terms = dict(data["terms"])
    terms["direct"] = {name: Direct(**own) for name, own in terms["direct"].items()}
    terms["sent"] = {name: Sent(**own) for name, own in terms["sent"].items()}
    terms["crowds"] = {name: Crowd(**own) for name, own in terms["crowds"].items()}
    terms["wide"] = {name: Wide(**own) for name, own in terms["wide"].items()}
    return Fitted(
        terms=Terms(**terms),
        spreads=Spreads(**data["spreads"]),
        devices=tuple(data["devices"]),
        ranks=data["ranks"],
        provenance=data["provenance"],
    )


def write(fitted: Fitted) -> dict[str, Any]:
    """Give fitted numbers as plain data, rounded to what is known of them."""
    return {key: _plain(value) for key, value in attrs.asdict(fitted).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _doubt(
    kind: str, group: Group, implementation: str, fitted: Fitted
) -> tuple[float, tuple[str, ...]]:
    """How far off a predicted exchange may be, and why."""
    span, device, spreads = group.span, group.device, fitted.spreads
    why: list[str] = []
    off = spreads.measured.get(implementation, max(spreads.measured.values()))
    if span.outer is not None:
        experts = fitted.terms.sent.get(implementation) if kind == "all_to_all" else None
        kinds = experts.wide if experts is not None else {}
        known = spreads.network.get(group.machine) or spreads.network.get(span.outer.kind)
        if known is None and span.outer.kind not in kinds:
            known = spreads.other_network
            why.append(
                f"communication over the {span.outer.kind} of {group.machine} was not measured"
            )
        off = max(off, known or 0.0)
    elif span.reach == "pcie":
        if group.machine not in fitted.terms.crowds:
            off = max(off, spreads.pcie)
            why.append(f"communication over the PCIe of {group.machine} was not measured")
    elif device.key not in fitted.devices:
        off = max(off, spreads.link)
        why.append(f"communication between {device.name} was not measured")
    most = span.ranks_per_domain if span.outer is not None else span.ranks
    if most > fitted.ranks:
        off += spreads.wider
        why.append(f"groups of more than {fitted.ranks} ranks on one link were not measured")
    return off, tuple(why)
