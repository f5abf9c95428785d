"""Rates, bandwidth, processors and cache of a GPU, with defaults where the catalog has none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import attrs

from parframe.errors import ParframeError
from parframe.hardware import Device

DEFAULT_PROCESSORS = 108
DEFAULT_CACHE = 40e6
"""Processors, and bytes of the last-level cache, of a device without these figures: an A100's."""


@attrs.frozen(eq=False)
class Chip:
    """GPU as the models of kernel times see it.

    Parameters
    ----------
    key
        Name of the device in the catalog.
    architecture
        Family of chips that kernels are written for.
    rates
        Dense operations per second by dtype: a multiplication and an addition are two.
    bandwidth
        Memory bandwidth in bytes per second.
    processors
        Streaming multiprocessors or compute units. Each works on one tile at a time.
    cache
        Bytes of the last-level cache.
    notes
        Figures that are guesses.
    """

    key: str
    architecture: str
    rates: Mapping[str, float]
    bandwidth: float
    processors: int
    cache: float
    notes: tuple[str, ...] = ()

    def rate(self, dtype: str) -> float:
        """Return the operations per second in a dtype.

        Raises
        ------
        ParframeError
            Of kind `hardware`, if the device has no rate for the dtype.
        """
        found = self.rates.get(dtype)
        if found is None:
            raise ParframeError(
                "hardware",
                where=self.key,
                what=f"has no rate of matrix products in {dtype}",
                hint=f"use one of {', '.join(self.rates)}, or add the rate to the device's file",
            )
        return found


@lru_cache(maxsize=512)
def chip(device: Device) -> Chip:
    """Return the chip of a device."""
    known = device.processors is not None
    return Chip(
        key=device.key,
        architecture=device.architecture,
        rates=dict(device.rates),
        bandwidth=device.bandwidth,
        processors=device.processors or DEFAULT_PROCESSORS,
        cache=device.last_level_cache or DEFAULT_CACHE,
        notes=() if known else (f"the number of processors of {device.key} is not known",),
    )
