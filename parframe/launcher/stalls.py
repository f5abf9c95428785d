"""Who is stopped, and whether a run stands still: what the records and the system say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from parframe.launcher.heartbeat import Progress
from parframe.launcher.processes import is_stopped
from parframe.launcher.start import Order

STALE = 1.0
"""Seconds without a heartbeat after which the system is asked whether the process is stopped."""

STOPPED = 1.5
"""Seconds that it must stay so to be called frozen."""

_GAP = 2.0  # seconds without a look: the launcher itself did not run


class Looking:
    """What was seen so far.

    A process that has no heartbeat is not frozen for that: on a busy machine it may wait for a
    processor, or hold the interpreter's lock. Only one that the system says is stopped is.

    Parameters
    ----------
    order
        What was started, with the time that each phase has.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._stopped: dict[int, float] = {}
        self._last: float | None = None
        self._resumed = 0.0

    def frozen(
        self, now: float, seen: Sequence[Progress], processes: Sequence[int | None]
    ) -> list[int]:
        """Who has been stopped for some time.

        Parameters
        ----------
        now
            The time.
        seen
            The records.
        processes
            The process of each, None where there is none to look at.

        Returns
        -------
        list of int
            The numbers of the records whose processes are stopped.
        """
        if self._last is not None and now - self._last > _GAP:
            self._resumed = now  # all may have been stopped together, and go on together
            self._stopped.clear()
        self._last = now
        for record, process in zip(seen, processes, strict=True):
            stale = now - max(record.beat, self._resumed) > STALE
            if process is not None and stale and is_stopped(process):
                self._stopped.setdefault(record.rank, now)
            else:
                self._stopped.pop(record.rank, None)
        return [rank for rank, since in self._stopped.items() if now - since > STOPPED]

    def stalled(
        self, now: float, seen: Sequence[Progress], starter: Progress
    ) -> Iterator[tuple[int, float]]:
        """Who stands still, if all do: one that waits for a busy peer does not count.

        Who waits for the launcher is idle, and so may be whoever is in the same phase; others that
        have not come as far still must.

        Parameters
        ----------
        now
            The time.
        seen
            The records of the workers.
        starter
            The record of the process that starts them.

        Yields
        ------
        tuple of int and float
            The number of the record and the seconds that it had, the likeliest culprit first.
        """
        starting = starter.phase != "watch"
        active = [record for record in seen if not record.done] + [starter] * starting
        idle = {record.phase for record in active if record.waiting}
        active = [record for record in active if record.phase not in idle]
        if not active:
            return
        limits = {record.rank: self._limit(record.phase) for record in active}
        since = {record.rank: max(record.progressed, self._resumed) for record in active}
        if all(now - since[rank] > limits[rank] for rank in limits):
            for record in [starter] if starting else _suspects(active):
                yield record.rank, limits[record.rank]

    def _limit(self, phase: str) -> float:
        return self._order.timeouts.get(phase, self._order.timeout)


def _suspects(stalled: Sequence[Progress]) -> list[Progress]:
    """Those that hold up the others first: least far, and where few others are."""
    at = Counter(str(record) for record in stalled)
    return sorted(
        stalled,
        key=lambda r: (-1 if r.step is None else r.step, at[str(r)], r.operators, r.progressed),
    )
