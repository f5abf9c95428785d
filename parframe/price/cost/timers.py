"""What tells how long something takes in steps of any size, and several such things in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import attrs

from parframe.price.cost.estimate import Estimate, joined
from parframe.price.work.work import Communication, Kernel, Step


@attrs.frozen(eq=False)
class Timer:
    """Tells how long all ``count`` of a kernel or an exchange take.

    Parameters
    ----------
    seconds
        By the sizes of a step.
    log_std, notes
        How far these may be off, and what should be known of them, as in an `Estimate`.
    """

    seconds: Callable[[Step], float]
    log_std: float = 0.0
    notes: tuple[str, ...] = ()

    def __call__(self, step: Step) -> Estimate:
        """Return the seconds in one step."""
        return Estimate(self.seconds(step), self.log_std, self.notes)


@attrs.frozen(eq=False)
class Sum:
    """Kernels or exchanges that follow each other.

    Parameters
    ----------
    timed
        Of each whether replicas divide it, its seconds by a step, and its spread.
    notes
        What should be known of all.
    """

    timed: tuple[tuple[bool, Callable[[Step], float], float], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[tuple[Kernel | Communication, Timer]]) -> Sum:
        """Take what is timed with its timers."""
        pairs = list(found)
        return cls(
            tuple((part.share < 1, timer.seconds, timer.log_std) for part, timer in pairs),
            joined(*(timer.notes for _, timer in pairs)),
        )

    def __call__(self, whole: Step, divided: Step) -> Estimate:
        """Return the seconds of all: of what replicas divide in a step of its own."""
        seconds = [of(divided if share else whole) for share, of, _ in self.timed]
        value = sum(seconds)
        if not value:
            return Estimate(0.0, 0.0, self.notes)
        off = [time * spread for time, (_, _, spread) in zip(seconds, self.timed, strict=True)]
        return Estimate(value, math.hypot(*off) / value, self.notes)
