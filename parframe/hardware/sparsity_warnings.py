"""What looks like the figure with sparsity where the dense one is meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from parframe.hardware.device import Device

_STEPS = (("bf16", "fp8", "fp4"), ("fp16", "fp8", "fp4"), ("bf16", "int8"), ("fp16", "int8"))
"""Dtypes of half the width each: hardware does at most a little over twice as many a second."""

_NEAR = 0.03


def doubts(device: Device, known: Iterable[Device]) -> Iterator[str]:
    """Tell which rates of a device look twice as high as they should be.

    Parameters
    ----------
    device
        One that a user describes.
    known
        The catalogue's, of which one with the same part and the same memory bandwidth is taken
        for the same GPU.
    """
    told: set[str] = set()
    for other in known:
        if other is device or not _alike(device, other):
            continue
        for dtype, rate in device.rates.items():
            dense = other.rates.get(dtype)
            if dense and dtype not in told and abs(rate / (2 * dense) - 1) <= _NEAR:
                told.add(dtype)
                yield (
                    f"{device.name}: {rate / 1e12:g} TFLOPS of {dtype} is twice the dense "
                    f"{dense / 1e12:g} of {other.name}: it is the figure with sparsity"
                )
    for wide, narrow in (pair for steps in _STEPS for pair in pairwise(steps)):
        slow, fast = device.rates.get(wide), device.rates.get(narrow)
        if slow and fast and narrow not in told and fast / slow >= 4 * (1 - _NEAR):
            told.add(narrow)
            yield (
                f"{device.name}: {fast / 1e12:g} TFLOPS of {narrow} is {fast / slow:.1f} times "
                f"that of {wide}, where hardware does twice: it is the figure with sparsity"
            )


def _alike(device: Device, other: Device) -> bool:
    """Whether two are one chip: by its words, or by memory and power where those are other."""
    same_part = set(other.part.split()) <= set(device.part.split())
    same_memory = abs(device.bandwidth / other.bandwidth - 1) <= _NEAR
    same_power = abs(device.power - other.power) <= _NEAR * other.power
    return same_part or (same_memory and same_power and device.memory == other.memory)
