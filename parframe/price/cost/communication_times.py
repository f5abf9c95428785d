"""Times of collectives and sends on the links that their group spans, with prediction errors."""

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
    CollectiveConstants,
    CustomAllReduce,
    ExpertAllToAll,
    Group,
    NetworkConstants,
    PcieContention,
    custom_all_reduce_seconds,
    expert_all_to_all_seconds,
    nccl_seconds,
)
from parframe.price.cost.dtypes import SIXTEEN
from parframe.price.cost.estimate import Estimate
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Communication, Step

EAGER_SUFFIX = "_eager"
"""Suffix of an implementation whose operators are launched without a CUDA graph."""

OTHER_RANKS_LOG_STD = 0.3
"""Further error, as a standard deviation of the logarithm, of a time that is scaled from another
number of ranks."""

_MAPPINGS: Mapping[str, type] = {
    "custom_all_reduce": CustomAllReduce,
    "expert_all_to_all": ExpertAllToAll,
    "pcie_contention": PcieContention,
    "networks": NetworkConstants,
}
"""Classes of the values of those fields of `CollectiveConstants` that are mappings."""

_ENGINES = {"vllm": "vllm", "sglang": "vllm", "tensorrt": "trtllm", "trtllm": "trtllm"}


@attrs.frozen
class CollectiveErrors:
    """Errors of predicted times: standard deviations of the natural logarithm.

    Parameters
    ----------
    measured
        On links that were measured, by implementation.
    link
        On a direct link of a device that was not measured.
    pcie
        On the PCIe of a machine that was not measured.
    network
        On the network of a measured machine, or on one of a measured kind.
    other_network
        On any other network.
    larger_group
        Added for a group of more ranks on one link than were measured.
    """

    measured: Mapping[str, float]
    link: float
    pcie: float
    network: Mapping[str, float]
    other_network: float
    larger_group: float


@attrs.frozen
class FittedCollectives:
    """Fitted constants of collectives.

    Parameters
    ----------
    constants
        Constants of the model of their times.
    log_std
        Errors of the predicted times.
    devices
        Devices whose direct link or PCIe was measured.
    max_ranks
        Most ranks of a measured group within a node.
    sources
        Tables that the constants are fitted to, with the number of rows.
    """

    constants: CollectiveConstants
    log_std: CollectiveErrors
    devices: tuple[str, ...]
    max_ranks: int
    sources: Mapping[str, int]


def communication_time(
    communication: Communication,
    message: float,
    cluster: Cluster,
    implementation: str = "nccl",
    fitted: FittedCollectives | None = None,
) -> Estimate:
    """Predict the time of one collective or send of a group, alone on its links.

    Parameters
    ----------
    communication
        Its kind and ranks. ``count`` is not applied.
    message
        Bytes of the whole message, in the sense of `Communication.elements`.
    cluster
        Cluster that has the ranks.
    implementation
        ``nccl``, or an engine's own kernels where it has some, and nccl for the rest: ``vllm`` and
        ``trtllm`` (all-reduce in one kernel), ``deepep`` and ``deepep_low_latency`` (all-to-all of
        experts). With the suffix ``_eager`` it is launched without a CUDA graph, and takes at least
        the launch time.
    fitted
        Constants to use instead of those that ship.

    Returns
    -------
    Estimate
        Seconds; ``notes`` lists figures that were not measured.

    Raises
    ------
    ParframeError
        Of kind `plan` for an unknown kind of communication, `usage` for an unknown implementation,
        `mesh` if a rank is not in the cluster.
    """
    seconds, log_std, notes = _by_message(
        communication, cluster, implementation, fitted or shipped()
    )
    return Estimate(seconds(message), log_std, notes) if message > 0 else Estimate(0.0)


def communication_timer(
    communication: Communication,
    cluster: Cluster,
    implementation: str = "nccl",
    element_bytes: float = SIXTEEN,
) -> Timer:
    """Return a timer of all ``count`` operators of an entry of communication.

    Implementations and errors are those of `communication_time`.
    """
    by_message = _by_message(communication, cluster, implementation, shipped())
    seconds_of_message, log_std, notes = by_message

    def seconds(step: Step) -> float:
        elements = communication.elements * step.count(communication.per) * communication.share
        return seconds_of_message(elements * element_bytes) * communication.count

    return Timer(seconds, log_std, notes)


def _by_message(
    communication: Communication, cluster: Cluster, implementation: str, fitted: FittedCollectives
) -> tuple[Callable[[float], float], float, tuple[str, ...]]:
    """Return the seconds by the bytes of a message, their error, and notes."""
    kind = communication.kind
    if kind not in KINDS:
        what = f"is an unknown kind of communication{did_you_mean(kind, KINDS)}"
        raise ParframeError("plan", repr(kind), what, f"use one of {', '.join(KINDS)}")
    check_implementation(implementation, fitted)
    span = cluster.span(communication.ranks)
    if span.ranks <= 1:
        return lambda message: 0.0, 0.0, ()
    own = _measured(kind, cluster, span.ranks) if span.outer is None else None
    if own is not None:
        return own
    group = Group(span, cluster.machine.device, cluster.machine.key)

    def seconds(message: float) -> float:
        if message <= 0:
            return 0.0
        return collective_seconds(kind, message, group, implementation, fitted.constants)

    return seconds, *_error(kind, group, implementation, fitted)


def _measured(
    kind: str, cluster: Cluster, ranks: int
) -> tuple[Callable[[float], float], float, tuple[str, ...]] | None:
    """Return the same from measurements on this machine, scaled from another number of ranks."""
    rows = [one for one in cluster.machine.collectives if one.kind == kind]
    if not rows:
        return None
    row = min(rows, key=lambda one: (abs(math.log(one.ranks / ranks)), one.ranks))
    if row.ranks == ranks:
        return row.time, row.log_std, ()
    start = row.time(0.0)
    steps = STEPS[kind](ranks) / STEPS[kind](row.ranks)
    wire = WIRE[kind](ranks) / WIRE[kind](row.ranks)
    note = f"{kind} was measured among {row.ranks} ranks, not {ranks}"
    seconds = lambda message: start * steps + (row.time(message) - start) * wire  # noqa: E731
    return seconds, math.hypot(row.log_std, OTHER_RANKS_LOG_STD), (note,)


def collective_seconds(
    kind: str, message: float, group: Group, implementation: str, constants: CollectiveConstants
) -> float:
    """Return the seconds of a message, with the engine's own kernel if it has one.

    An engine uses its own all-reduce only where it is faster, which depends on the message size.
    """
    name = implementation.removesuffix(EAGER_SUFFIX)
    seconds = nccl_seconds(kind, message, group, constants)
    if kind == "all_reduce" and name in constants.custom_all_reduce:
        custom = constants.custom_all_reduce[name]
        own = custom_all_reduce_seconds(custom, message, group, constants)
        seconds = seconds if own is None else min(seconds, own)
    elif kind == "all_to_all" and name in constants.expert_all_to_all:
        experts = constants.expert_all_to_all[name]
        own = expert_all_to_all_seconds(experts, message, group, constants)
        seconds = seconds if own is None else own
    return max(seconds, constants.launch) if implementation.endswith(EAGER_SUFFIX) else seconds


def implementation_of(framework: str) -> str:
    """Return the implementation of collectives that a framework uses, by any spelling.

    Examples
    --------
    >>> implementation_of("TensorRT-LLM 0.17"), implementation_of("gpt-fast (PyTorch)")
    ('trtllm', 'nccl')
    """
    word = framework.casefold().replace("-", "").replace(" ", "")
    return next((own for name, own in _ENGINES.items() if name in word), "nccl")


def implementations(fitted: FittedCollectives | None = None) -> tuple[str, ...]:
    """Return all implementations with constants."""
    constants = (fitted or shipped()).constants
    return tuple(
        dict.fromkeys(("nccl", *constants.custom_all_reduce, *constants.expert_all_to_all))
    )


def check_implementation(name: str, fitted: FittedCollectives) -> None:
    """Refuse an unknown implementation."""
    known = implementations(fitted)
    if name.removesuffix(EAGER_SUFFIX) not in known:
        raise ParframeError(
            "usage",
            f"implementation {name!r}",
            f"is unknown{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )


@cache
def shipped() -> FittedCollectives:
    """Return the constants that ship with parframe."""
    text = (files("parframe.price") / "data" / "collectives.json").read_text(encoding="utf-8")
    return read(json.loads(text))


def read(data: Mapping[str, Any]) -> FittedCollectives:
    """Read constants from the data that `write` returns."""
    constants = dict(data["constants"])
    for field, kind in _MAPPINGS.items():
        constants[field] = {name: kind(**own) for name, own in constants[field].items()}
    return FittedCollectives(
        constants=CollectiveConstants(**constants),
        log_std=CollectiveErrors(**data["log_std"]),
        devices=tuple(data["devices"]),
        max_ranks=data["max_ranks"],
        sources=data["sources"],
    )


def write(fitted: FittedCollectives) -> dict[str, Any]:
    """Return constants as plain data, with four significant digits."""
    return {key: _plain(value) for key, value in attrs.asdict(fitted).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _error(
    kind: str, group: Group, implementation: str, fitted: FittedCollectives
) -> tuple[float, tuple[str, ...]]:
    """Return the error of a predicted time, and notes."""
    span, device, errors = group.span, group.device, fitted.log_std
    notes: list[str] = []
    off = errors.measured.get(implementation, max(errors.measured.values()))
    if span.outer is not None:
        experts = (
            fitted.constants.expert_all_to_all.get(implementation) if kind == "all_to_all" else None
        )
        kinds = experts.networks if experts is not None else {}
        known = errors.network.get(group.machine) or errors.network.get(span.outer.kind)
        if known is None and span.outer.kind not in kinds:
            known = errors.other_network
            notes.append(
                f"communication over the {span.outer.kind} of {group.machine} was not measured"
            )
        off = max(off, known or 0.0)
    elif span.reach == "pcie":
        if group.machine not in fitted.constants.pcie_contention:
            off = max(off, errors.pcie)
            notes.append(f"communication over the PCIe of {group.machine} was not measured")
    elif device.key not in fitted.devices:
        off = max(off, errors.link)
        notes.append(f"communication between {device.name} was not measured")
    most = span.ranks_per_domain if span.outer is not None else span.ranks
    if most > fitted.max_ranks:
        off += errors.larger_group
        notes.append(f"groups of more than {fitted.max_ranks} ranks on one link were not measured")
    return off, tuple(notes)
