"""Compute rates, memory and bandwidth of a GPU, or of a share of a CPU's processors."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.hardware.measurements import Measured

DTYPES = ("fp32", "bf16", "fp16", "fp8", "fp4", "int8")
"""Dtypes of matrix operations. A device may lack some."""


@attrs.frozen(cache_hash=True)
class Device:
    """GPU, or share of a CPU's processors, without the machine around it.

    Parameters
    ----------
    key
        Key in the catalog.
    name
        Name in tables.
    maker
        Name of the maker.
    architecture
        Family of chips that kernels are written for, such as ``hopper``.
    part
        Words of the chip's name that distinguish it from others.
    forms
        Sockets or cards of the chip, such as ``sxm``.
    rates
        Dense matrix operations per second by dtype: a multiplication and an addition are two.
        A dtype that is absent is not supported.
    memory
        Bytes of memory.
    usable_share
        Part of the memory that software can use.
    bandwidth
        Memory bandwidth in bytes per second.
    power
        Power limit of the board in watts; 0 if it is not known.
    processors
        Number of enabled streaming multiprocessors (NVIDIA) or compute units (AMD), or None if
        it is not known.
    last_level_cache
        Bytes of the last cache before the memory, or None if they are not known.
    sources
        Sources of the figures.
    notes
        Remarks by the key of a figure: its meaning, or disagreement between sources.
    measured
        Speeds that were measured on this device. If there are any, times are predicted from them
        alone.
    """

    key: str
    name: str
    maker: str
    architecture: str
    part: str
    forms: tuple[str, ...]
    rates: Mapping[str, float] = attrs.field(hash=False)
    memory: int
    usable_share: float
    bandwidth: float
    power: float
    processors: int | None = None
    last_level_cache: float | None = None
    sources: tuple[str, ...] = attrs.field(default=(), hash=False, eq=False)
    notes: Mapping[str, str] = attrs.field(factory=dict, hash=False, eq=False)
    measured: Measured = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def usable(self) -> int:
        """Bytes of memory that software can use."""
        return int(self.memory * self.usable_share)

    def rate(self, dtype: str) -> float | None:
        """Return the dense operations per second in a dtype, or None if it is not supported."""
        return self.rates.get(dtype)
