"""A machine as its ranks measured it: speeds of a rank beside the others and alone, exchanges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.executors.local import ENVIRONMENT
from parframe.hardware import Device, Link, Machine, MeasuredCollective, Speeds
from parframe.launcher import Launch
from parframe.measurement.samples import Part, Times, over_rounds
from parframe.measurement.worker import ALONE, AT_ONCE, TASK

MODULE = "parframe.measurement.worker"

DTYPES: Mapping[str, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Dtypes that can be measured, by torch's names: as hardware files call them."""

_BYTES: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
_OPERATORS = ("product", "decode", "prompt", "pointwise")


@attrs.frozen
class Asked:
    """What is measured.

    Parameters
    ----------
    name
        What the machine will be called.
    ranks
        Into how many devices it is divided.
    device
        ``cpu`` or ``cuda``.
    dtypes
        Torch's names of dtypes.
    sizes
        Fields of `parframe.measurement.kernel_timing.Sizes` that are not the usual ones.
    exchange_times
        How often each exchange is measured.
    batches
        How many answers of each small model are timed; a quarter of it of larger ones.
    patience
        Seconds that are waited in all for moments in which other programs leave the processors.
    timeout
        Seconds without any progress after which ranks have failed.
    """

    name: str
    ranks: int
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32",)
    sizes: Mapping[str, Any] = attrs.field(factory=dict)
    exchange_times: int = 20
    batches: int = 40
    patience: float = 0.0
    timeout: float = 600.0


@attrs.define
class Heard:
    """What ranks told: amounts and times by what was measured; bytes that a rank has anyway."""

    points: dict[tuple[str, str, str, float], dict[int, list[tuple[float, Times]]]]
    exchanges: dict[tuple[str, int, int], list[Times]]
    resident: int = 0


def measured(asked: Asked) -> Heard:
    """Start the ranks, and measure them.

    Raises
    ------
    ParframeError
        If a rank fails.
    """
    facts = {
        "device": asked.device, "dtypes": list(asked.dtypes),
        "sizes": {k: list(v) if isinstance(v, tuple) else v for k, v in asked.sizes.items()},
        "exchange_times": asked.exchange_times, "patience": asked.patience / 2,
    }  # fmt: skip
    heard = Heard({}, {})
    with Launch(
        MODULE, TASK, asked.ranks, facts, timeout=asked.timeout, environment=ENVIRONMENT
    ) as run:
        for event in run.events():
            _hear(heard, event.rank, event.message)
    return heard


def _hear(heard: Heard, rank: int, message: Mapping[str, Any]) -> None:
    if "resident" in message:
        heard.resident = max(heard.resident, message["resident"])
    if "point" in message:
        point = message["point"]
        key = (message["when"], DTYPES[message["dtype"]], point["operator"], point["size"])
        times = Times(**point["times"])
        heard.points.setdefault(key, {}).setdefault(rank, []).append((point["amount"], times))
    if "exchange" in message:
        own = message["exchange"]
        key_ = (own["kind"], own["ranks"], own["bytes"])
        heard.exchanges.setdefault(key_, []).append(Times(**own["times"]))


def machine_of(asked: Asked, heard: Heard, part: Part) -> Machine:
    """Make a machine, without engines, of what its ranks told."""
    device = _device(asked, heard, AT_ONCE, part)
    exchanges = tuple(_exchanges(heard, part))
    largest = [one for one in exchanges if one.kind == "send"]
    speed = largest[0].sizes[-1] / largest[0].seconds[-1] if largest else device.bandwidth
    kind = ("gloo" if asked.device == "cpu" else "NCCL") if largest else "memory"
    return Machine(
        key=device.key,
        name=asked.name,
        device=device,
        per_node=asked.ranks,
        link=None,
        pcie=Link(kind, "tree", asked.ranks, speed, peer=False),
        network=None,
        alone=_device(asked, heard, ALONE, part) if asked.ranks > 1 else None,
        divided=asked.ranks,
        collectives=exchanges,
    )


def _device(asked: Asked, heard: Heard, when: str, part: Part) -> Device:
    memory, usable = memory_of(asked.device)
    own = {key[1:]: by_rank for key, by_rank in heard.points.items() if key[0] == when}
    found: dict[str, dict[str, Speeds]] = {}
    for operator in _OPERATORS:
        for dtype in (DTYPES[name] for name in asked.dtypes):
            points = sorted((key[2], own[key]) for key in own if key[:2] == (dtype, operator))
            found.setdefault(operator, {})[dtype] = _speeds(points, part)
    products = found["product"]
    rates = {
        dtype: max(2 * n * v for n, v in zip(s.sizes, s.speeds, strict=True))
        for dtype, s in products.items()
    }
    read = [_rate(by_rank, part)[0] for key, by_rank in own.items() if key[1] == "read"]
    few = [s.speeds[0] * _BYTES[dtype] for dtype, s in products.items()]
    alone = when == ALONE
    return Device(
        key=f"{asked.name}_{asked.ranks}" + "_alone" * alone,
        name=f"{asked.name}, one of {asked.ranks}" + " while the others wait" * alone,
        maker=processor() if asked.device == "cpu" else "",
        architecture=asked.device,
        part=asked.name,
        forms=(),
        rates=rates,
        memory=memory // (asked.ranks if asked.device == "cpu" else 1),
        usable_share=usable,
        bandwidth=max(*read, *few),
        power=0.0,
        sources=("parframe measure",),
        measured=found,
    )


def _speeds(
    points: Iterable[tuple[float, Mapping[int, Sequence[tuple[float, Times]]]]], part: Part
) -> Speeds:
    sizes, speeds, spreads = [], [], []
    for size, by_rank in points:
        rate, spread = _rate(by_rank, part)
        sizes.append(size)
        speeds.append(rate)
        spreads.append(spread)
    return Speeds(tuple(sizes), tuple(speeds), sum(spreads) / len(spreads))


def _rate(by_rank: Mapping[int, Sequence[tuple[float, Times]]], part: Part) -> tuple[float, float]:
    """The amount a second of a rank, by the median of its rounds, and how rounds scatter."""
    each = [[times / amount for amount, times in own] for own in by_rank.values()]
    found = [over_rounds(one, part) for one in each]
    return len(found) / sum(one for one, _ in found), sum(off for _, off in found) / len(found)


def _exchanges(heard: Heard, part: Part) -> Iterable[MeasuredCollective]:
    """Times of exchanges: the median of all rounds and ranks."""
    for kind, ranks in dict.fromkeys(key[:2] for key in heard.exchanges):
        sizes = sorted(key[2] for key in heard.exchanges if key[:2] == (kind, ranks))
        found = [over_rounds(heard.exchanges[kind, ranks, n], part) for n in sizes]
        times = tuple(one for one, _ in found)
        spread = sum(off for _, off in found) / len(found)
        yield MeasuredCollective(kind, ranks, tuple(map(float, sizes)), times, spread)


def memory_of(device: str) -> tuple[int, float]:
    """Bytes of memory of all processors, or of a GPU, and the part that is not in use."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return total, free / total
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    listed = Path("/proc/meminfo")
    if listed.exists():
        lines = (line.split() for line in listed.read_text().splitlines())
        free = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), free)
    return total, min(free / total, 1.0)


def processor() -> str:
    """What the processor calls itself."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
