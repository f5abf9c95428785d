"""The numbers of exchanges by name: which of them rows can tell, and terms made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.calibration.collective_rows import Row
from parframe.price.cost.collective_model import Crowd, Direct, Sent, Terms, Wide
from parframe.price.cost.communication_times import EAGER

BEGIN: Mapping[str, float] = {
    "start": 5e-6,
    "step": 1e-6,
    "step_pcie": 1e-6,
    "later": 2.0,
    "early": 0.5,
    "early_pcie": 0.5,
    "share": 0.8,
    "switch": 0.9,
    "copy": 0.3,
    "host": 30e-6,
    "latency": 1.0,
    "direct.start": 4e-6,
    "direct.rank": 0.1e-6,
    "direct.share": 0.6,
    "direct.second": 3e-6,
    "crowd.share": 0.5,
    "crowd.crowding": 0.5,
    "wide.step": 30e-6,
    "wide.share": 0.7,
    "sent.start": 20e-6,
    "sent.share": 0.6,
}
"""Where fits begin, by the last words of a number's name; also what it is without a row."""

FIRST = "hopper"
"""The architecture whose latency is 1."""

TWICE = ("vllm",)
"""Engines whose own all-reduce has a form in two steps for long messages."""

OVER_PCIE = ("vllm",)
"""Engines whose own all-reduce runs between two ranks over PCIe."""

OVER_NETWORKS: Mapping[str, Mapping[str, float]] = {
    "deepep": {"InfiniBand": 0.92},
    "deepep_low_latency": {"InfiniBand": 0.82},
}
"""The share of a 400 Gb/s adapter that all-to-alls of experts reach: medians over the groups of 16
and more ranks in the table of DeepEP (`deepep_readme.csv`)."""

_PLAIN = tuple(name for name in BEGIN if "." not in name and name != "latency")


def names_of(rows: Sequence[Row]) -> list[str]:
    """The numbers that rows can tell."""
    names = list(_PLAIN)
    kinds = dict.fromkeys(row.machine.device.architecture for row in rows)
    names += [f"latency.{kind}" for kind in kinds if kind != FIRST]
    engines = dict.fromkeys(row.implementation.removesuffix(EAGER) for row in rows)
    for own in engines:
        if own in OVER_NETWORKS:
            names += [f"sent.{own}.start", f"sent.{own}.share"]
        elif own != "nccl":
            words = ["start", "rank", "share", *(["second"] if own in TWICE else [])]
            names += [f"direct.{own}.{word}" for word in words]
    for machine in dict.fromkeys(r.machine.key for r in rows if r.group.span.reach == "pcie"):
        own_rows = [r for r in rows if r.machine.key == machine and r.group.span.reach == "pcie"]
        sizes = {row.group.span.ranks for row in own_rows}
        names.append(f"crowd.{machine}.share")
        names += [f"crowd.{machine}.crowding"] if max(sizes) >= 2 * min(sizes) else []
    return names


def terms_of(numbers: Mapping[str, float]) -> Terms:
    """Numbers by name as terms."""
    latency = _of(numbers, "latency")
    crowds = {
        machine: Crowd(of["share"], of.get("crowding", 0.0))
        for machine, of in _nested(numbers, "crowd").items()
    }
    shares = [crowd.share for crowd in crowds.values()] or [BEGIN["crowd.share"]]
    told = [of["crowding"] for of in _nested(numbers, "crowd").values() if "crowding" in of]
    crowding = told or [BEGIN["crowd.crowding"]]
    crowds["any"] = Crowd(_middle(shares), fmean(crowding))
    known = [*latency.values(), 1.0]
    wide = {kind: Wide(**of) for kind, of in _nested(numbers, "wide").items()}
    slow = [network for kind, network in wide.items() if kind != "InfiniBand"]
    ethernet = Wide(
        _middle([network.step for network in slow] or [BEGIN["wide.step"]]),
        _middle([network.share for network in slow] or [BEGIN["wide.share"]]),
    )
    return Terms(
        **{name: numbers.get(name, BEGIN[name]) for name in _PLAIN},
        latency={FIRST: 1.0, **latency, "any": _middle(known)},
        direct={
            name: Direct(**of, pcie=name in OVER_PCIE)
            for name, of in _nested(numbers, "direct").items()
        },
        sent={
            name: Sent(of["start"], of["share"], OVER_NETWORKS[name])
            for name, of in _nested(numbers, "sent").items()
        },
        crowds=crowds,
        wide={**wide, "Ethernet": ethernet},
    )


def begin(name: str) -> float:
    """Where the fit of a number begins."""
    first, _, rest = name.partition(".")
    last = rest.rpartition(".")[2]
    return BEGIN.get(f"{first}.{last}", BEGIN.get(first, 1.0))


def _middle(numbers: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(fmean(map(math.log, numbers)))


def _of(numbers: Mapping[str, float], first: str) -> dict[str, float]:
    begins = f"{first}."
    return {name.removeprefix(begins): n for name, n in numbers.items() if name.startswith(begins)}


def _nested(numbers: Mapping[str, float], first: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, number in _of(numbers, first).items():
        whose, _, word = name.rpartition(".")
        found.setdefault(whose, {})[word] = number
    return found
