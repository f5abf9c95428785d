"""Times of something that is done again and again: the median, and that of quiet moments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import attrs

Part = Literal["middle", "low"]
"""Which of several times counts: the median, or the 10th percentile, which other programs of the
same machine disturb least."""

_FEWEST = 5

_TENTH = 1.2816
"""Standard deviations from the median of a normal distribution to its 10th percentile."""


@attrs.frozen
class Times:
    """What was seen of one thing, in seconds: the 10th percentile and the median."""

    low: float
    middle: float

    def __truediv__(self, count: float) -> Times:
        return Times(self.low / count, self.middle / count)

    def part(self, part: Part) -> float:
        """One of both."""
        return self.low if part == "low" else self.middle


def times_of(seconds: Sequence[float]) -> Times:
    """Sum up what was seen."""
    ordered = sorted(seconds)
    return Times(ordered[round(0.1 * (len(ordered) - 1))], median(ordered))


def repeated(
    once: Callable[[], object], seconds: float, done: Callable[[], None], computes: bool = False
) -> Times:
    """Time something again and again.

    Parameters
    ----------
    once
        What is timed.
    seconds
        For how long, at least a few times.
    done
        Waits until it is done, where devices work by themselves.
    computes
        Whether one thread of this process computes all the time. Of quiet moments counts then what
        it had the processor for: a pass is longer than other programs leave it to itself.
    """
    found: list[float] = []
    own: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < _FEWEST or time.perf_counter() < end:
        begun, before = time.perf_counter(), time.process_time()
        once()
        done()
        found.append(time.perf_counter() - begun)
        own.append(min(time.process_time() - before, found[-1]))
    times = times_of(found)
    return Times(times_of(own).low, times.middle) if computes else times


def merged(rounds: Sequence[Times]) -> Times:
    """What several rounds saw of the same: the quietest one, and the median."""
    return Times(min(one.low for one in rounds), median(one.middle for one in rounds))


def over_rounds(rounds: Sequence[Times], part: Part) -> tuple[float, float]:
    """What several rounds come to, in seconds, and the standard deviation of its logarithm.

    The median of all rounds, or the quietest one. How far off it may be: as rounds scatter (of the
    quietest, it and the next), and as a moment within a round differs from a quiet one.
    """
    within = median(math.log(one.middle / one.low) for one in rounds) / _TENTH
    ordered = sorted(one.part(part) for one in rounds)
    value = ordered[0] if part == "low" else median(ordered)
    return value, math.hypot(scatter(ordered[:2] if part == "low" else ordered), within)


def scatter(seconds: Sequence[float]) -> float:
    """Standard deviation of the logarithms of a few times."""
    logs = [math.log(one) for one in seconds]
    mean = sum(logs) / len(logs)
    return math.sqrt(sum((one - mean) ** 2 for one in logs) / max(len(logs) - 1, 1))
