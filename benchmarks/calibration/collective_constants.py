"""Constants of collectives by name: those that rows determine, and `CollectiveConstants`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.calibration.collective_rows import Row
from parframe.price.cost.collective_model import (
    CollectiveConstants,
    CustomAllReduce,
    ExpertAllToAll,
    NetworkConstants,
    PcieContention,
)
from parframe.price.cost.communication_times import EAGER_SUFFIX

BEGIN: Mapping[str, float] = {
    "start": 5e-6,
    "step": 1e-6,
    "step_pcie": 1e-6,
    "long_start_factor": 2.0,
    "short_share": 0.5,
    "short_share_pcie": 0.5,
    "link_share": 0.8,
    "switch_share": 0.9,
    "copy_share": 0.3,
    "launch": 30e-6,
    "latency_factors": 1.0,
    "custom_all_reduce.start": 4e-6,
    "custom_all_reduce.per_rank": 0.1e-6,
    "custom_all_reduce.share": 0.6,
    "custom_all_reduce.two_shot": 3e-6,
    "pcie_contention.share": 0.5,
    "pcie_contention.exponent": 0.5,
    "networks.step": 30e-6,
    "networks.share": 0.7,
    "expert_all_to_all.start": 20e-6,
    "expert_all_to_all.share": 0.6,
}
"""Initial values of fits, by a constant's kind and last word; also its value without rows."""

FIRST = "hopper"
"""Architecture with a latency factor of 1."""

TWO_SHOT = ("vllm",)
"""Engines whose own all-reduce has a two-shot form for long messages."""

OVER_PCIE = ("vllm",)
"""Engines whose own all-reduce runs between two ranks over PCIe."""

OVER_NETWORKS: Mapping[str, Mapping[str, float]] = {
    "deepep": {"InfiniBand": 0.92},
    "deepep_low_latency": {"InfiniBand": 0.82},
}
"""Part of a 400 Gb/s adapter's bandwidth that all-to-alls of experts reach: medians over the groups
of 16 and more ranks in the table of DeepEP (`deepep_readme.csv`)."""

_PLAIN = tuple(name for name in BEGIN if "." not in name and name != "latency_factors")


def names_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the constants that rows determine."""
    names = list(_PLAIN)
    kinds = dict.fromkeys(row.machine.device.architecture for row in rows)
    names += [f"latency_factors.{kind}" for kind in kinds if kind != FIRST]
    engines = dict.fromkeys(row.implementation.removesuffix(EAGER_SUFFIX) for row in rows)
    for engine in engines:
        if engine in OVER_NETWORKS:
            names += [f"expert_all_to_all.{engine}.start", f"expert_all_to_all.{engine}.share"]
        elif engine != "nccl":
            words = ["start", "per_rank", "share", *(["two_shot"] if engine in TWO_SHOT else [])]
            names += [f"custom_all_reduce.{engine}.{word}" for word in words]
    for machine in dict.fromkeys(r.machine.key for r in rows if r.group.span.reach == "pcie"):
        own_rows = [r for r in rows if r.machine.key == machine and r.group.span.reach == "pcie"]
        sizes = {row.group.span.ranks for row in own_rows}
        names.append(f"pcie_contention.{machine}.share")
        names += [f"pcie_contention.{machine}.exponent"] if max(sizes) >= 2 * min(sizes) else []
    return names


def constants_of(numbers: Mapping[str, float]) -> CollectiveConstants:
    """Return the constants of collectives from numbers by name."""
    latency = _of(numbers, "latency_factors")
    crowds = {
        machine: PcieContention(of["share"], of.get("exponent", 0.0))
        for machine, of in _nested(numbers, "pcie_contention").items()
    }
    shares = [crowd.share for crowd in crowds.values()] or [BEGIN["pcie_contention.share"]]
    nested = _nested(numbers, "pcie_contention").values()
    exponents = [of["exponent"] for of in nested if "exponent" in of]
    exponents = exponents or [BEGIN["pcie_contention.exponent"]]
    crowds["any"] = PcieContention(_middle(shares), fmean(exponents))
    known = [*latency.values(), 1.0]
    wide = {kind: NetworkConstants(**of) for kind, of in _nested(numbers, "networks").items()}
    slow = [network for kind, network in wide.items() if kind != "InfiniBand"]
    ethernet = NetworkConstants(
        _middle([network.step for network in slow] or [BEGIN["networks.step"]]),
        _middle([network.share for network in slow] or [BEGIN["networks.share"]]),
    )
    return CollectiveConstants(
        **{name: numbers.get(name, BEGIN[name]) for name in _PLAIN},
        latency_factors={FIRST: 1.0, **latency, "any": _middle(known)},
        custom_all_reduce={
            name: CustomAllReduce(**of, pcie=name in OVER_PCIE)
            for name, of in _nested(numbers, "custom_all_reduce").items()
        },
        expert_all_to_all={
            name: ExpertAllToAll(of["start"], of["share"], OVER_NETWORKS[name])
            for name, of in _nested(numbers, "expert_all_to_all").items()
        },
        pcie_contention=crowds,
        networks={**wide, "Ethernet": ethernet},
    )


def begin(name: str) -> float:
    """Return the initial value of a constant."""
    first, _, rest = name.partition(".")
    last = rest.rpartition(".")[2]
    return BEGIN.get(f"{first}.{last}", BEGIN.get(first, 1.0))


def _middle(numbers: Sequence[float]) -> float:
    """Return the geometric mean."""
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
