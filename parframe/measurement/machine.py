"""Hardware description of this machine, from the times that its ranks have measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from parframe.hardware import Device, Link, Machine, MeasuredCollective, Speeds
from parframe.measurement.rank_measurement import DTYPES, MeasurementSettings, RankMeasurements
from parframe.measurement.samples import Statistic, Times, estimate_over_rounds
from parframe.measurement.worker import ALONE, AT_ONCE

_DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
_OPERATORS = ("product", "decode", "prompt", "pointwise")

Samples = Sequence[tuple[float, Times]]
"""The amount and the times of each round."""


def build_machine(
    settings: MeasurementSettings, measurements: RankMeasurements, statistic: Statistic
) -> Machine:
    """Build the description of a machine, without engines, from repeated times."""
    device = _build_device(settings, measurements, AT_ONCE, statistic)
    collectives = tuple(_summarize_collectives(measurements, statistic))
    send = next((times for times in collectives if times.kind == "send"), None)
    bandwidth = send.sizes[-1] / send.seconds[-1] if send is not None else device.bandwidth
    backend = "gloo" if settings.device == "cpu" else "NCCL"
    alone = _build_device(settings, measurements, ALONE, statistic) if settings.ranks > 1 else None
    return Machine(
        key=device.key,
        name=settings.name,
        device=device,
        per_node=settings.ranks,
        link=None,
        pcie=Link(
            backend if send is not None else "memory", "tree", settings.ranks, bandwidth, peer=False
        ),
        network=None,
        alone=alone,
        divided=settings.ranks,
        collectives=collectives,
    )


def _build_device(
    settings: MeasurementSettings, measurements: RankMeasurements, when: str, statistic: Statistic
) -> Device:
    """Build the description of one device, while all ranks compute or while the others wait."""
    memory, usable = measure_memory(settings.device)
    kernels = {key[1:]: ranks for key, ranks in measurements.kernels.items() if key[0] == when}
    dtypes = [DTYPES[name] for name in settings.dtypes]
    measured: dict[str, dict[str, Speeds]] = {}
    for operator in _OPERATORS:
        measured[operator] = {}
        for dtype in dtypes:
            by_size = sorted(
                (key[2], kernels[key]) for key in kernels if key[:2] == (dtype, operator)
            )
            measured[operator][dtype] = _estimate_speeds(by_size, statistic)
    products = measured["product"]
    rates = {
        dtype: max(2 * size * speed for size, speed in zip(s.sizes, s.speeds, strict=True))
        for dtype, s in products.items()
    }
    read = [_estimate_rate(r, statistic)[0] for key, r in kernels.items() if key[1] == "read"]
    one_row = [s.speeds[0] * _DTYPE_BYTES[dtype] for dtype, s in products.items()]
    alone, cpu = when == ALONE, settings.device == "cpu"
    return Device(
        key=f"{settings.name}_{settings.ranks}" + "_alone" * alone,
        name=f"{settings.name}, one of {settings.ranks}" + " while the others wait" * alone,
        maker=read_processor_name() if cpu else "",
        architecture=settings.device,
        part=settings.name,
        forms=(),
        rates=rates,
        memory=memory // (settings.ranks if cpu else 1),
        usable_share=usable,
        bandwidth=max(*read, *one_row),
        power=0.0,
        sources=("parframe measure",),
        measured=measured,
    )


def _estimate_speeds(
    by_size: Iterable[tuple[float, Mapping[int, Samples]]], statistic: Statistic
) -> Speeds:
    """Estimate the speed of a kernel at each size, and the mean error of its logarithm."""
    sizes, speeds, errors = [], [], []
    for size, by_rank in by_size:
        speed, error = _estimate_rate(by_rank, statistic)
        sizes.append(size)
        speeds.append(speed)
        errors.append(error)
    return Speeds(tuple(sizes), tuple(speeds), sum(errors) / len(errors))


def _estimate_rate(by_rank: Mapping[int, Samples], statistic: Statistic) -> tuple[float, float]:
    """Estimate the amount per second of a rank, and the standard deviation of its logarithm."""
    per_amount = [[times / amount for amount, times in samples] for samples in by_rank.values()]
    estimates = [estimate_over_rounds(rounds, statistic) for rounds in per_amount]
    ranks = len(estimates)
    return ranks / sum(time for time, _ in estimates), sum(std for _, std in estimates) / ranks


def _summarize_collectives(
    measurements: RankMeasurements, statistic: Statistic
) -> Iterator[MeasuredCollective]:
    """Yield the times of each collective over message sizes, from all rounds and ranks."""
    collectives = measurements.collectives
    for kind, ranks in dict.fromkeys(key[:2] for key in collectives):
        sizes = sorted(key[2] for key in collectives if key[:2] == (kind, ranks))
        estimates = [
            estimate_over_rounds(collectives[kind, ranks, size], statistic) for size in sizes
        ]
        times = tuple(time for time, _ in estimates)
        log_std = sum(std for _, std in estimates) / len(estimates)
        yield MeasuredCollective(kind, ranks, tuple(map(float, sizes)), times, log_std)


def measure_memory(device: str) -> tuple[int, float]:
    """Return the bytes of memory of the processors or of a GPU, and the share that is free."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return total, free / total
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        free = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), free)
    return total, min(free / total, 1.0)


def read_processor_name() -> str:
    """Return the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
