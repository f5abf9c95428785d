"""A GPU as its kernels see it: rates, bandwidth, processors, cache."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files

import attrs

from parframe.errors import ParframeError
from parframe.hardware import Device

USUAL_PROCESSORS = 108
USUAL_CACHE = 40e6
"""What a chip is taken to have that is not in ``data/chips.toml`` (those of an A100)."""


@attrs.frozen(eq=False)
class Chip:
    """A GPU as its kernels see it.

    Parameters
    ----------
    key
        Its name in the catalogue.
    architecture
        The family of chips, which kernels are written for.
    rates
        Dense operations a second by dtype: a multiplication and an addition are two.
    bandwidth
        Bytes a second of the memory.
    processors
        Streaming multiprocessors or compute units, each of which works on one tile at a time.
    cache
        Bytes of the last cache before the memory.
    why
        What is a guess.
    """

    key: str
    architecture: str
    rates: Mapping[str, float]
    bandwidth: float
    processors: int
    cache: float
    why: tuple[str, ...] = ()

    def rate(self, dtype: str) -> float:
        """Return the operations a second in a dtype.

        Raises
        ------
        ParframeError
            If the catalogue has no rate for it.
        """
        found = self.rates.get(dtype)
        if found is None:
            raise ParframeError(
                "hardware",
                where=self.key,
                what=f"no rate of products in {dtype} is known",
                hint=f"use one of {', '.join(self.rates)}, or give the device with this rate",
            )
        return found


@lru_cache(maxsize=512)
def chip(device: Device) -> Chip:
    """Return the chip of a device of the catalogue."""
    known = _chips().get(device.key)
    why = () if known else (f"how many processors {device.key} has is not known",)
    known = known or {}
    return Chip(
        key=device.key,
        architecture=device.architecture,
        rates=dict(device.rates),
        bandwidth=device.bandwidth,
        processors=int(known.get("processors", USUAL_PROCESSORS)),
        cache=known["cache_mb"] * 1e6 if known else USUAL_CACHE,
        why=why,
    )


@cache
def _chips() -> Mapping[str, Mapping[str, float]]:
    text = (files("parframe.price") / "data" / "chips.toml").read_text(encoding="utf-8")
    table: Mapping[str, Mapping[str, float]] = tomllib.loads(text)["chip"]
    return table
