"""Warnings about rates that look like figures with sparsity instead of dense ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from parframe.hardware.device import Device

_STEPS = (("bf16", "fp8", "fp4"), ("fp16", "fp8", "fp4"), ("bf16", "int8"), ("fp16", "int8"))
"""Dtypes of half the width each. Hardware is about twice as fast in the next one at most."""

_TOLERANCE = 0.03


def sparsity_warnings(device: Device, known: Iterable[Device]) -> Iterator[str]:
    """Yield a warning for each rate of a device that looks twice as high as it should be.

    A known device with the same part, or with the same memory and power, is taken for the same GPU.
    """
    warned: set[str] = set()
    for other in known:
        if other is device or not _same_gpu(device, other):
            continue
        for dtype, rate in device.rates.items():
            dense = other.rates.get(dtype)
            if dense and dtype not in warned and abs(rate / (2 * dense) - 1) <= _TOLERANCE:
                warned.add(dtype)
                yield (
                    f"{device.name}: {rate / 1e12:g} TFLOPS of {dtype} is twice the dense "
                    f"{dense / 1e12:g} of {other.name}: it is the figure with sparsity"
                )
    for wide, narrow in (pair for steps in _STEPS for pair in pairwise(steps)):
        slow, fast = device.rates.get(wide), device.rates.get(narrow)
        if slow and fast and narrow not in warned and fast / slow >= 4 * (1 - _TOLERANCE):
            warned.add(narrow)
            yield (
                f"{device.name}: {fast / 1e12:g} TFLOPS of {narrow} is {fast / slow:.1f} times "
                f"that of {wide}, where hardware does twice: it is the figure with sparsity"
            )


def _same_gpu(device: Device, other: Device) -> bool:
    """Return whether two devices are one GPU by their part, or by memory and power."""
    same_part = set(other.part.split()) <= set(device.part.split())
    same_memory = abs(device.bandwidth / other.bandwidth - 1) <= _TOLERANCE
    same_power = abs(device.power - other.power) <= _TOLERANCE * other.power
    return same_part or (same_memory and same_power and device.memory == other.memory)
