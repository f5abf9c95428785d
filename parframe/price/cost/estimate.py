"""Predicted times with a prediction error and notes."""

from __future__ import annotations

import math
from statistics import NormalDist

import attrs


@attrs.frozen
class Estimate:
    """Predicted time, whose logarithm is taken as normally distributed.

    Parameters
    ----------
    value
        Median in seconds.
    log_std
        Standard deviation of the natural logarithm: 0.1 is about 10 % off.
    notes
        Remarks for the reader, such as a missing figure or hardware that was not measured.

    Notes
    -----
    ``+`` takes the errors of both sides as independent, so errors of different kernels partly
    cancel. ``*`` repeats one kernel with the same error, and keeps ``log_std``. An error that all
    terms of a sum share, such as that of an engine's overhead, belongs to the sum:
    :meth:`widened`.
    """

    value: float
    log_std: float = 0.0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            return NotImplemented
        return total([self, other])

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.log_std, self.notes)

    __rmul__ = __mul__

    def widened(self, spread: float, *why: str) -> Estimate:
        """Return this estimate with one more independent error over all of it."""
        return Estimate(self.value, math.hypot(self.log_std, spread), merge_notes(self.notes, why))

    def rate(self, amount: float) -> Estimate:
        """Return an amount per second, if the amount takes this time."""
        return Estimate(amount / self.value, self.log_std, self.notes)

    def interval(self, share: float = 0.8) -> tuple[float, float]:
        """Return the prediction interval in seconds that holds ``share`` of the outcomes."""
        reach = NormalDist().inv_cdf((1 + share) / 2) * self.log_std
        return self.value * math.exp(-reach), self.value * math.exp(reach)


ZERO = Estimate(0.0)
"""Estimate of zero seconds, the start of sums."""


def total(estimates: list[Estimate]) -> Estimate:
    """Return the sum of independent estimates."""
    value = sum([estimate.value for estimate in estimates])
    why = merge_notes(*[estimate.notes for estimate in estimates])
    if not value:
        return Estimate(0.0, 0.0, why)
    off = math.hypot(*[estimate.value * estimate.log_std for estimate in estimates])
    return Estimate(value, off / value, why)


def merge_notes(*reasons: tuple[str, ...]) -> tuple[str, ...]:
    """Return notes in order, each once."""
    if not any(reasons):
        return ()
    return tuple(dict.fromkeys([reason for some in reasons for reason in some]))
