"""Detection of stopped processes and of stalled runs, from heartbeats and process states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from parframe.launcher.fork_server_process import LaunchConfig
from parframe.launcher.heartbeat import Progress
from parframe.launcher.processes import is_stopped

STALE = 1.0
"""Seconds without a heartbeat after which the process state is read."""

STOPPED = 1.5
"""Seconds that a process must stay stopped before it is reported as frozen."""

_GAP = 2.0  # seconds without a check: the launcher itself did not run


class StallDetector:
    """Detector of frozen processes and of stalled runs.

    A missing heartbeat alone does not make a process frozen: on a busy machine the process may wait
    for a CPU or for the interpreter lock. Only a process in the stopped state is frozen.
    """

    def __init__(self, config: LaunchConfig) -> None:
        self._config = config
        self._stopped: dict[int, float] = {}
        self._last_check: float | None = None
        self._resumed = 0.0

    def find_frozen(
        self, now: float, progress: Sequence[Progress], processes: Sequence[int | None]
    ) -> list[int]:
        """Return the ranks whose processes have been stopped for `STOPPED` seconds."""
        if self._last_check is not None and now - self._last_check > _GAP:
            self._resumed = now  # all may have been stopped together, and continue together
            self._stopped.clear()
        self._last_check = now
        for current, process in zip(progress, processes, strict=True):
            stale = now - max(current.beat, self._resumed) > STALE
            if process is not None and stale and is_stopped(process):
                self._stopped.setdefault(current.rank, now)
            else:
                self._stopped.pop(current.rank, None)
        return [rank for rank, since in self._stopped.items() if now - since > STOPPED]

    def find_stalled(
        self, now: float, progress: Sequence[Progress], fork_server: Progress
    ) -> Iterator[tuple[int, float]]:
        """Yield the stalled ranks if all ranks exceeded their time limits, and nothing otherwise.

        A rank that waits for a message of the launcher is idle, and so may be the other ranks in
        the same phase. Ranks in earlier phases must still make progress.

        Yields
        ------
        tuple of int and float
            Rank and its time limit in seconds, the most likely cause first.
        """
        starting = fork_server.phase != "watch"
        active = [current for current in progress if not current.done] + [fork_server] * starting
        idle = {current.phase for current in active if current.waiting}
        active = [current for current in active if current.phase not in idle]
        if not active:
            return
        limits = {current.rank: self._limit(current.phase) for current in active}
        since = {current.rank: max(current.progressed, self._resumed) for current in active}
        if all(now - since[rank] > limits[rank] for rank in limits):
            for current in [fork_server] if starting else _order_suspects(active):
                yield current.rank, limits[current.rank]

    def _limit(self, phase: str) -> float:
        return self._config.timeouts.get(phase, self._config.timeout)


def _order_suspects(stalled: Sequence[Progress]) -> list[Progress]:
    """Sort the ranks that likely block the others first: least progress, at the rarest place."""
    count = Counter(str(progress) for progress in stalled)
    return sorted(
        stalled,
        key=lambda p: (-1 if p.step is None else p.step, count[str(p)], p.operators, p.progressed),
    )
