"""Measurement of kernels and collectives on the ranks of this node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from parframe.executors.local import ENVIRONMENT
from parframe.launcher import Launch
from parframe.measurement.samples import Times
from parframe.measurement.worker import TASK

MODULE = "parframe.measurement.worker"

DTYPES: Mapping[str, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Dtypes that can be measured, with their names in hardware files."""


@attrs.frozen
class MeasurementSettings:
    """Settings of a measurement."""

    name: str  # that of the machine
    ranks: int  # the number of devices that the machine is divided into
    device: str = "cpu"  # or ``cuda``
    dtypes: tuple[str, ...] = ("float32",)  # torch's names
    sizes: Mapping[str, Any] = attrs.field(factory=dict)  # fields of `KernelSizes`
    collective_repeats: int = 20
    batches: int = 40  # of each small model; a quarter of it for larger models
    patience: float = 0.0  # total seconds to wait until other programs leave the processors idle
    timeout: float = 600.0  # seconds without progress after which ranks have failed


KernelKey = tuple[str, str, str, float]
"""When it was measured, dtype, operator, size."""

CollectiveKey = tuple[str, int, int]
"""Kind, number of ranks, bytes."""


@attrs.define
class RankMeasurements:
    """Times that ranks have measured."""

    kernels: dict[KernelKey, dict[int, list[tuple[float, Times]]]] = attrs.field(factory=dict)
    collectives: dict[CollectiveKey, list[Times]] = attrs.field(factory=dict)
    resident_bytes: int = 0  # the largest memory of a rank before it has weights

    def add(self, rank: int, message: Mapping[str, Any]) -> None:
        """Add what a rank has sent."""
        if "resident_bytes" in message:
            self.resident_bytes = max(self.resident_bytes, message["resident_bytes"])
        if "kernel" in message:
            kernel, dtype = message["kernel"], DTYPES[message["dtype"]]
            key = (message["when"], dtype, kernel["operator"], kernel["size"])
            sample = (kernel["amount"], Times(**kernel["times"]))
            self.kernels.setdefault(key, {}).setdefault(rank, []).append(sample)
        if "collective" in message:
            collective = message["collective"]
            collective_key = (collective["kind"], collective["ranks"], collective["bytes"])
            times = Times(**collective["times"])
            self.collectives.setdefault(collective_key, []).append(times)

    def extend(self, other: RankMeasurements) -> None:
        """Add the measurements of another round."""
        for key, by_rank in other.kernels.items():
            for rank, samples in by_rank.items():
                self.kernels.setdefault(key, {}).setdefault(rank, []).extend(samples)
        for collective_key, times in other.collectives.items():
            self.collectives.setdefault(collective_key, []).extend(times)
        self.resident_bytes = max(self.resident_bytes, other.resident_bytes)


def measure_ranks(settings: MeasurementSettings) -> RankMeasurements:
    """Start the ranks, and measure kernels and collectives on them."""
    sizes = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.sizes.items()}
    facts = {
        "device": settings.device,
        "dtypes": list(settings.dtypes),
        "sizes": sizes,
        "collective_repeats": settings.collective_repeats,
        "patience": settings.patience / 2,
    }
    measurements = RankMeasurements()
    with Launch(
        MODULE, TASK, settings.ranks, facts, timeout=settings.timeout, environment=ENVIRONMENT
    ) as run:
        for event in run.events():
            measurements.add(event.rank, event.message)
    return measurements
