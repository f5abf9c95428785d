"""A GPU, or a share of processors: how fast it computes, its memory and that memory's speed."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.hardware.measurements import Measured

DTYPES = ("fp32", "bf16", "fp16", "fp8", "fp4", "int8")
"""The dtypes of matrix operations, of which a device may lack some."""


@attrs.frozen(cache_hash=True)
class Device:
    """A GPU, without the box that it is in.

    Parameters
    ----------
    key
        Its name in the catalogue.
    name
        Its name in tables.
    maker
        Who makes it.
    architecture
        The family of chips, as ``hopper``: what kernels are written for.
    part
        The words that name the chip, which tell it from others.
    forms
        The sockets or cards that it comes as, as ``sxm``.
    rates
        Dense matrix operations a second (a multiplication and an addition are two) by dtype;
        what is absent is not supported.
    memory
        Bytes of memory.
    usable_share
        The part of them that software sees.
    bandwidth
        Bytes a second from and to the memory.
    power
        The limit of the board, in watts; 0 where it is not known.
    processors
        Streaming multiprocessors (NVIDIA) or compute units (AMD) that are enabled; None where
        their number is not known.
    last_level_cache
        Bytes of the last cache before the memory; None where they are not known.
    sources
        Where the figures come from.
    notes
        Where sources disagree, or what a figure means, by the key of the figure.
    measured
        What was measured of this very device; where it is there, times follow from it alone.
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
        """The bytes of memory that software sees."""
        return int(self.memory * self.usable_share)

    def rate(self, dtype: str) -> float | None:
        """Dense operations a second in a dtype; None where the device has none for it."""
        return self.rates.get(dtype)
