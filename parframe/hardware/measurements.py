"""Measured speeds of a device and measured times of collectives, with interpolation."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import attrs

OPERATORS = ("product", "decode", "prompt", "pointwise")
"""Operators that a device is measured at. `Speeds` describes their sizes."""


@attrs.frozen
class Speeds:
    """Measured speeds of one operator on a device, by size.

    A size is the rows of a ``product``, the cached positions of a decode step (``decode``), the new
    positions of a ``prompt``, the elements of a ``pointwise`` kernel. A speed is an amount per
    second: weight elements of a ``product``; cached elements of ``decode``; pairs of positions
    times heads times the width of key and value of a ``prompt``; elements that ``pointwise``
    kernels read and write. Logarithms are interpolated linearly between sizes. Beyond the measured
    sizes, the speed is that of the nearest size.
    """

    sizes: tuple[float, ...]  # ascending
    speeds: tuple[float, ...]  # at these sizes
    log_std: float = 0.0  # standard deviation of the logarithm of the times

    def at(self, size: float) -> float:
        """Return the speed at a size."""
        return interpolate(self.sizes, self.speeds, min(max(size, self.sizes[0]), self.sizes[-1]))


@attrs.frozen
class MeasuredCollective:
    """Measured times of one kind of communication among a number of ranks."""

    kind: str  # such as ``all_reduce`` or ``send``
    ranks: int
    sizes: tuple[float, ...]  # bytes of the whole message, ascending
    seconds: tuple[float, ...]  # with the time that ranks wait for each other
    log_std: float = 0.0  # standard deviation of the logarithm of the times

    def time(self, size: float) -> float:
        """Return the seconds of a message; above the measured sizes they are proportional to it."""
        if size <= self.sizes[0]:
            return self.seconds[0]
        if size >= self.sizes[-1]:
            return self.seconds[-1] * size / self.sizes[-1]
        return interpolate(self.sizes, self.seconds, size)


Measured = Mapping[str, Mapping[str, Speeds]]
"""Measured speeds by operator and dtype."""


def interpolate(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """Return the value at a size within the range of the sizes, linear in logarithms."""
    at = bisect_left(sizes, size)
    if sizes[at] == size:
        return values[at]
    low, high = math.log(sizes[at - 1]), math.log(sizes[at])
    part = (math.log(size) - low) / (high - low)
    return math.exp(part * math.log(values[at]) + (1 - part) * math.log(values[at - 1]))
