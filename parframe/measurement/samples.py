"""Statistics of repeated times: the median and the 10th percentile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import attrs

Statistic = Literal["median", "p10"]
"""Statistic of repeated times: the median, or the 10th percentile, which other programs on the
same machine affect least."""

_MIN_REPEATS = 5

_P10_DEVIATIONS = 1.2816
"""Standard deviations from the median of a normal distribution to its 10th percentile."""


@attrs.frozen
class Times:
    """Statistics of repeated times, in seconds: the 10th percentile and the median."""

    p10: float
    median: float

    def __truediv__(self, count: float) -> Times:
        return Times(self.p10 / count, self.median / count)

    def get(self, statistic: Statistic) -> float:
        """Return one of both, in seconds."""
        return self.p10 if statistic == "p10" else self.median


def summarize_times(seconds: Sequence[float]) -> Times:
    """Return the statistics of times."""
    ordered = sorted(seconds)
    return Times(ordered[round(0.1 * (len(ordered) - 1))], median(ordered))


def time_repeatedly(
    run: Callable[[], object],
    seconds: float,
    synchronize: Callable[[], None],
    single_thread: bool = False,
) -> Times:
    """Time a function again and again for some seconds, and a few times at least.

    `synchronize` waits until the device has finished. If a `single_thread` of this process computes
    all the time, the 10th percentile is that of the process's CPU time, because other programs
    interrupt every run.
    """
    wall: list[float] = []
    cpu: list[float] = []
    end = time.perf_counter() + seconds
    while len(wall) < _MIN_REPEATS or time.perf_counter() < end:
        start, cpu_start = time.perf_counter(), time.process_time()
        run()
        synchronize()
        wall.append(time.perf_counter() - start)
        cpu.append(min(time.process_time() - cpu_start, wall[-1]))
    times = summarize_times(wall)
    return Times(summarize_times(cpu).p10, times.median) if single_thread else times


def merge_rounds(rounds: Sequence[Times]) -> Times:
    """Merge the times of several rounds: the smallest 10th percentile, the median of medians."""
    return Times(min(times.p10 for times in rounds), median(times.median for times in rounds))


def estimate_over_rounds(rounds: Sequence[Times], statistic: Statistic) -> tuple[float, float]:
    """Estimate a time in seconds, and the standard deviation of its logarithm, from several rounds.

    The time is the median of all rounds, or with ``"p10"`` that of the fastest. The deviation is
    that of the rounds among each other (of the two fastest with ``"p10"``) and within a round.
    """
    within = median(math.log(times.median / times.p10) for times in rounds) / _P10_DEVIATIONS
    ordered = sorted(times.get(statistic) for times in rounds)
    value = ordered[0] if statistic == "p10" else median(ordered)
    between = log_standard_deviation(ordered[:2] if statistic == "p10" else ordered)
    return value, math.hypot(between, within)


def log_standard_deviation(seconds: Sequence[float]) -> float:
    """Return the standard deviation of the logarithms of times."""
    logs = [math.log(value) for value in seconds]
    mean = sum(logs) / len(logs)
    return math.sqrt(sum((log - mean) ** 2 for log in logs) / max(len(logs) - 1, 1))
