"""What was measured of a device and of the exchanges in its box, between the measured sizes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import attrs

OPERATORS = ("product", "decode", "prompt", "pointwise")
"""What a device is measured at; `Speeds` says in which sizes."""


@attrs.frozen
class Speeds:
    """How fast a device does one operator, by the size of what it is given.

    Parameters
    ----------
    sizes
        Ascending. Of a ``product`` the rows; of attention the positions that a step of decoding
        (``decode``) sees, or the new ones of a ``prompt``; of ``pointwise`` kernels the elements.
    speeds
        At these sizes, a second: of a ``product`` the weights; of ``decode`` the elements of the
        cache; of a ``prompt`` pairs of positions times heads times the width of key and value; of
        ``pointwise`` kernels the elements that they read and write.
    spread
        Standard deviation of the logarithm of the times.

    Notes
    -----
    Between sizes logarithms are taken as linear; beyond them the nearest size counts.
    """

    sizes: tuple[float, ...]
    speeds: tuple[float, ...]
    spread: float = 0.0

    def at(self, size: float) -> float:
        """Return the speed at a size."""
        return interpolated(self.sizes, self.speeds, min(max(size, self.sizes[0]), self.sizes[-1]))


@attrs.frozen
class Exchanged:
    """The times of one kind of exchange among a number of ranks.

    Parameters
    ----------
    kind
        As ``all_reduce`` or ``send``.
    ranks
        How many take part.
    sizes
        Bytes of the whole message, ascending.
    seconds
        What it takes, the waiting for others that have as much to do included.
    spread
        Standard deviation of the logarithm of the times.
    """

    kind: str
    ranks: int
    sizes: tuple[float, ...]
    seconds: tuple[float, ...]
    spread: float = 0.0

    def time(self, size: float) -> float:
        """Return the seconds of a message; a longer one than any measured goes on as the last."""
        if size <= self.sizes[0]:
            return self.seconds[0]
        if size >= self.sizes[-1]:
            return self.seconds[-1] * size / self.sizes[-1]
        return interpolated(self.sizes, self.seconds, size)


Measured = Mapping[str, Mapping[str, Speeds]]
"""Speeds by operator and dtype."""


def interpolated(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """Return the value at a size between the least and the greatest of some, by logarithms."""
    at = bisect_left(sizes, size)
    if sizes[at] == size:
        return values[at]
    low, high = math.log(sizes[at - 1]), math.log(sizes[at])
    part = (math.log(size) - low) / (high - low)
    return math.exp(part * math.log(values[at]) + (1 - part) * math.log(values[at - 1]))
