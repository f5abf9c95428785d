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
    spread, why
        How far these may be off, and what should be known of them, as in an `Estimate`.
    """

    seconds: Callable[[Step], float]
    spread: float = 0.0
    why: tuple[str, ...] = ()

    def __call__(self, step: Step) -> Estimate:
        """Return the seconds in one step."""
        return Estimate(self.seconds(step), self.spread, self.why)


@attrs.frozen(eq=False)
class Sum:
    """Kernels or exchanges that follow each other.

    Parameters
    ----------
    timed
        Of each whether replicas divide it, its seconds by a step, and its spread.
    why
        What should be known of all.
    """

    timed: tuple[tuple[bool, Callable[[Step], float], float], ...]
    why: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[tuple[Kernel | Communication, Timer]]) -> Sum:
        """Take what is timed with its timers."""
        pairs = list(found)
        return cls(
            tuple((part.share < 1, timer.seconds, timer.spread) for part, timer in pairs),
            joined(*(timer.why for _, timer in pairs)),
        )

    def __call__(self, whole: Step, divided: Step) -> Estimate:
        """Return the seconds of all: of what replicas divide in a step of its own."""
        seconds = [of(divided if share else whole) for share, of, _ in self.timed]
        value = sum(seconds)
        if not value:
            return Estimate(0.0, 0.0, self.why)
        off = [time * spread for time, (_, _, spread) in zip(seconds, self.timed, strict=True)]
        return Estimate(value, math.hypot(*off) / value, self.why)
