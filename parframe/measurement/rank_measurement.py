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
    """Settings of a measurement.

    Parameters
    ----------
    name
        Name of the machine.
    ranks
        Number of devices that the machine is divided into.
    device
        ``cpu`` or ``cuda``.
    dtypes
        Torch's names of dtypes.
    sizes
        Fields of `parframe.measurement.kernel_timing.KernelSizes` that differ from their defaults.
    collective_repeats
        How often each collective is timed.
    batches
        How many batches of each small model are timed; a quarter of it for larger models.
    patience
        Total seconds to wait for moments in which other programs leave the processors idle.
    timeout
        Seconds without progress after which ranks have failed.
    """

    name: str
    ranks: int
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32",)
    sizes: Mapping[str, Any] = attrs.field(factory=dict)
    collective_repeats: int = 20
    batches: int = 40
    patience: float = 0.0
    timeout: float = 600.0


KernelKey = tuple[str, str, str, float]
"""When it was measured, dtype, operator, size."""

CollectiveKey = tuple[str, int, int]
"""Kind, number of ranks, bytes."""


@attrs.define
class RankMeasurements:
    """Times that ranks have measured.

    For each kernel, by rank, the amount and the times of each round; for each collective the times
    of each round and rank; the largest memory of a rank before it has weights.
    """

    kernels: dict[KernelKey, dict[int, list[tuple[float, Times]]]] = attrs.field(factory=dict)
    collectives: dict[CollectiveKey, list[Times]] = attrs.field(factory=dict)
    resident_bytes: int = 0

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
