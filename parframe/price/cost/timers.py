"""Timers: seconds of kernels and communication as functions of the sizes of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import attrs

from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.work.work import Communication, Kernel, Step


@attrs.frozen(eq=False)
class Timer:
    """Seconds of all ``count`` operators of a kernel or communication, by the sizes of a step.

    Parameters
    ----------
    seconds
        Function from a step to seconds.
    log_std, notes
        Prediction error and notes, as in an `Estimate`.
    """

    seconds: Callable[[Step], float]
    log_std: float = 0.0
    notes: tuple[str, ...] = ()

    def __call__(self, step: Step) -> Estimate:
        """Return the time in one step."""
        return Estimate(self.seconds(step), self.log_std, self.notes)


@attrs.frozen(eq=False)
class TimerSum:
    """TimerSum of the times of kernels or communication that follow each other.

    Parameters
    ----------
    timed
        For each, whether replicas split it, its seconds by a step, and its ``log_std``.
    notes
        Notes of all.
    """

    timed: tuple[tuple[bool, Callable[[Step], float], float], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[tuple[Kernel | Communication, Timer]]) -> TimerSum:
        """Make the sum of kernels or communication with their timers."""
        pairs = list(found)
        return cls(
            tuple((part.share < 1, timer.seconds, timer.log_std) for part, timer in pairs),
            merge_notes(*(timer.notes for _, timer in pairs)),
        )

    def __call__(self, whole: Step, divided: Step) -> Estimate:
        """Return the total time of a step; ``divided`` is the step of one replica."""
        seconds = [of(divided if share else whole) for share, of, _ in self.timed]
        value = sum(seconds)
        if not value:
            return Estimate(0.0, 0.0, self.notes)
        off = [time * spread for time, (_, _, spread) in zip(seconds, self.timed, strict=True)]
        return Estimate(value, math.hypot(*off) / value, self.notes)
