"""Detection and collection of the failures of a run."""

from __future__ import annotations

import mmap
import signal
import time
from collections.abc import Sequence
from typing import Any

import attrs

from parframe.launcher.failures import Failure, add_output_reason, order_by_cause
from parframe.launcher.fork_server_process import LaunchConfig
from parframe.launcher.heartbeat import read_progress
from parframe.launcher.stall_detector import StallDetector
from parframe.launcher.worker_output import OutputRelay
from parframe.launcher.worker_state import (
    FROZEN,
    FailureFields,
    WorkerState,
    crash_fields,
    stall_fields,
)

CHECK_INTERVAL = 0.1
"""Seconds between two checks of the heartbeats."""

GRACE = 0.3
"""Seconds in which the other ranks may report their failures after the first one."""

_EXIT_CODE = 0.6  # seconds in which the exit code of a process that is gone should arrive
_LAST_EXIT_CODES = 5.0  # the same when all tasks have ended and all processes exit at once


class FailureDetector:
    """Detector of the failures of the workers and of the fork server of one run."""

    def __init__(
        self,
        config: LaunchConfig,
        estimates: Sequence[str],
        memory: mmap.mmap,
        workers: Sequence[WorkerState],
    ) -> None:
        self.config = config
        self.estimates = estimates
        self.memory = memory
        self.workers = workers
        self.fork_server_failures: list[Failure] = []
        self.ending = False
        """True once all tasks have ended, so that the workers may exit."""
        self._stalls = StallDetector(config)
        self._checked = 0.0

    @property
    def failures(self) -> list[Failure]:
        """Failures so far, in no order."""
        of_workers = [worker.failure for worker in self.workers if worker.failure is not None]
        return of_workers + self.fork_server_failures

    @property
    def succeeded(self) -> bool:
        """True if all tasks have succeeded and all workers have exited."""
        return all(self._has_succeeded(worker) for worker in self.workers)

    def add(self, rank: int | None, **fields: Any) -> None:
        """Add a failure of a worker, or of the fork server if the rank is None.

        Only the first failure of a worker counts.
        """
        if rank is None:
            self.fork_server_failures.append(self._create_failure(None, **fields))
        elif self.workers[rank].failure is None:
            self.workers[rank].failure = self._create_failure(rank, **fields)

    def check_progress(self, fork_server: int) -> None:
        """Add failures of frozen processes and of a stalled run, at most once an interval."""
        now = time.monotonic()
        if now - self._checked < CHECK_INTERVAL:
            return
        self._checked = now
        workers = [read_progress(self.memory, worker.rank) for worker in self.workers]
        server = read_progress(self.memory, self.config.world)
        processes = [w.process if w.gone is None else None for w in self.workers]
        for rank in self._stalls.find_frozen(now, [*workers, server], [*processes, fork_server]):
            self._add_by_number(rank, FROZEN)
        for rank, limit in self._stalls.find_stalled(now, workers, server):
            self._add_by_number(rank, stall_fields(limit))

    def has_failed(self) -> bool:
        """Return whether the run has failed and the other ranks had time to report failures."""
        now = time.monotonic()
        for worker in self.workers:
            self._check_exit(worker, now, _LAST_EXIT_CODES if self.ending else _EXIT_CODE)
        failures = self.failures
        if not failures:
            return False
        pending = [w for w in self.workers if w.failure is None and not w.done]
        if pending and now - min(failure.at for failure in failures) < GRACE:
            return False
        for worker in pending:
            self._check_exit(worker, now, 0)  # it is gone if it could not report
        return True

    def order_failures(self, output: OutputRelay) -> list[Failure]:
        """Return the failures, the first cause first, with reasons from the workers' output."""
        return [self._add_reason(failure, output) for failure in order_by_cause(self.failures)]

    def _add_by_number(self, number: int, fields: FailureFields) -> None:
        self.add(None if number == self.config.world else number, **fields)

    def _check_exit(self, worker: WorkerState, now: float, patience: float) -> None:
        """Add the failure of a worker that is gone, once its exit code is known or overdue."""
        if worker.failure is not None or worker.gone is None or self._has_succeeded(worker):
            return
        if worker.code is not None or now - worker.gone >= patience:
            worker.failure = self._create_failure(worker.rank, **crash_fields(worker))

    def _has_succeeded(self, worker: WorkerState) -> bool:
        return self.ending and worker.gone is not None and worker.code == 0

    def _create_failure(self, rank: int | None, **fields: Any) -> Failure:
        """Create a failure at the place that the heartbeat of the rank gives."""
        progress = read_progress(self.memory, self.config.world if rank is None else rank)
        fields.setdefault("at", time.monotonic())
        memory = fields["cause"] == "memory" or fields.get("code") == -signal.SIGKILL
        estimate = self.estimates[rank] if memory and rank is not None else ""
        return Failure(
            rank=rank,
            phase=progress.phase,
            step=progress.step,
            operator=progress.operator,
            estimate=estimate,
            **fields,
        )

    def _add_reason(self, failure: Failure, output: OutputRelay) -> Failure:
        """Add the reason that a worker wrote to its output before it exited without a message."""
        if failure.rank is None or failure.cause != "crashed":
            return failure
        explained = add_output_reason(failure, output.last_output(failure.rank))
        memory = explained.cause == "memory"
        estimate = self.estimates[failure.rank] if memory else failure.estimate
        return attrs.evolve(explained, estimate=estimate)
