"""Waiting for other programs to leave the processors, while this one does nothing."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

BUSY = 0.12
"""The share of all processors that others may use in a calm moment."""

_LOOK = 0.25
_LASTS = 1.0

_STAT = Path("/proc/stat")


@attrs.define
class Calm:
    """Waits for calm moments, for so many seconds in all.

    Parameters
    ----------
    patience
        Seconds that it may wait in all; after those it waits no more.
    """

    patience: float
    _looked: float = 0.0

    def __call__(self) -> None:
        """Wait for a calm moment; whoever calls must have nothing else to do meanwhile."""
        if time.monotonic() - self._looked < _LASTS:
            return
        while self.patience > 0 and busy(_LOOK) > BUSY:
            self.patience -= _LOOK
        self._looked = time.monotonic()


def busy(seconds: float) -> float:
    """Return the share of the processors that is in use for some time; 0 where that is not told."""
    if not _STAT.exists():
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    whole = after[0] - before[0]
    return 1 - (after[1] - before[1]) / whole if whole else 0.0


def _ticks() -> tuple[int, int]:
    """Of all processors together: all ticks, and those without work (proc(5), `cpu`)."""
    with _STAT.open() as file:
        counted = [int(word) for word in file.readline().split()[1:9]]
    return sum(counted), counted[3] + counted[4]
