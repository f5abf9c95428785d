"""Wait until other programs leave the processors idle."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

MAX_CPU_USE = 0.12
"""Largest share of all processors that other programs may use during a measurement."""

_SAMPLE_SECONDS = 0.25
_VALID_SECONDS = 1.0
"""Time for which a sample counts, before the use is sampled again."""

_STAT = Path("/proc/stat")


@attrs.define
class IdleWait:
    """Waits for idle processors, with a limit on the total time."""

    patience: float  # seconds that it may wait in total; after those it returns at once
    _checked: float = 0.0

    def wait(self) -> None:
        """Wait until the processors are idle; the caller must not use them meanwhile."""
        if time.monotonic() - self._checked < _VALID_SECONDS:
            return
        while self.patience > 0 and measure_cpu_use(_SAMPLE_SECONDS) > MAX_CPU_USE:
            self.patience -= _SAMPLE_SECONDS
        self._checked = time.monotonic()


def measure_cpu_use(seconds: float) -> float:
    """Measure the share of all processors in use over some seconds; 0 if the system has no data."""
    if not _STAT.exists():
        return 0.0
    before = _read_ticks()
    time.sleep(seconds)
    after = _read_ticks()
    total = after[0] - before[0]
    return 1 - (after[1] - before[1]) / total if total else 0.0


def _read_ticks() -> tuple[int, int]:
    """Return the total and the idle ticks of all processors (proc(5), `cpu`)."""
    with _STAT.open() as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]
