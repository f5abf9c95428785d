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

    In rates a multiplication and an addition are two operations; a dtype without a rate is not
    supported. If any speeds were measured on this device, times are predicted from them alone.
    """

    key: str  # in the catalog
    name: str  # in tables
    maker: str
    architecture: str  # family of chips that kernels are written for, such as ``hopper``
    part: str  # words of the chip's name that distinguish it from others
    forms: tuple[str, ...]  # sockets or cards of the chip, such as ``sxm``
    rates: Mapping[str, float] = attrs.field(hash=False)  # dense operations per second by dtype
    memory: int  # bytes
    usable_share: float  # the part of the memory that software can use
    bandwidth: float  # bytes per second from memory
    power: float  # limit of the board in watts; 0 if it is not known
    processors: int | None = None  # enabled streaming multiprocessors or compute units, if known
    last_level_cache: float | None = None  # bytes of the last cache before the memory, if known
    sources: tuple[str, ...] = attrs.field(default=(), hash=False, eq=False)
    notes: Mapping[str, str] = attrs.field(factory=dict, hash=False, eq=False)  # by a figure's key
    measured: Measured = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def usable(self) -> int:
        """Bytes of memory that software can use."""
        return int(self.memory * self.usable_share)

    def rate(self, dtype: str) -> float | None:
        """Return the dense operations per second in a dtype, or None if it is not supported."""
        return self.rates.get(dtype)
