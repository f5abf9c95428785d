"""A predicted time with how far it may be off, and why it is what it is."""

from __future__ import annotations

import math
from statistics import NormalDist

import attrs


@attrs.frozen
class Estimate:
    """A time whose logarithm is taken as normally distributed.

    Parameters
    ----------
    value
        Median, in seconds.
    log_std
        Standard deviation of the natural logarithm: 0.1 is about 10 % off.
    notes
        What the reader should know: a figure that was missing, a region that was not measured.

    Notes
    -----
    ``+`` takes the errors of its sides as independent, so that the errors of many different
    kernels partly cancel; ``*`` repeats one thing, whose error comes again each time, and so keeps
    the spread. What shares its error (a whole engine that is slower than thought) belongs in one
    factor over the sum: :meth:`widened`.
    """

    value: float
    log_std: float = 0.0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            return NotImplemented
        total = self.value + other.value
        if total == 0:
            return Estimate(0.0, max(self.log_std, other.log_std), joined(self.notes, other.notes))
        off = math.hypot(self.value * self.log_std, other.value * other.log_std)
        return Estimate(total, off / total, joined(self.notes, other.notes))

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.log_std, self.notes)

    __rmul__ = __mul__

    def widened(self, spread: float, *why: str) -> Estimate:
        """Return this estimate with one more independent error over all of it."""
        return Estimate(self.value, math.hypot(self.log_std, spread), joined(self.notes, why))

    def interval(self, share: float = 0.8) -> tuple[float, float]:
        """Return the seconds between which ``share`` of the outcomes are expected to lie."""
        reach = NormalDist().inv_cdf((1 + share) / 2) * self.log_std
        return self.value * math.exp(-reach), self.value * math.exp(reach)


NOTHING = Estimate(0.0)
"""No time at all: where sums begin."""


def total(estimates: list[Estimate]) -> Estimate:
    """Return the sum of independent estimates."""
    value = sum([estimate.value for estimate in estimates])
    why = joined(*[estimate.notes for estimate in estimates])
    if not value:
        return Estimate(0.0, 0.0, why)
    off = math.hypot(*[estimate.value * estimate.log_std for estimate in estimates])
    return Estimate(value, off / value, why)


def joined(*reasons: tuple[str, ...]) -> tuple[str, ...]:
    """Return reasons in order, each once."""
    if not any(reasons):
        return ()
    return tuple(dict.fromkeys([reason for some in reasons for reason in some]))
