"""State of each worker as the launcher knows it, and descriptions of their failures."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Iterable
from typing import Any

import attrs

from parframe.launcher.channel import Channel
from parframe.launcher.failures import Failure
from parframe.launcher.processes import describe_exit

FailureFields = dict[str, Any]
"""Fields of a `Failure`, except those that say where it happened."""

FROZEN: FailureFields = {
    "cause": "frozen",
    "description": "frozen: a signal stopped the process, and nothing resumed it",
    "hint": "find the sender of SIGSTOP or SIGTSTP; a stopped rank blocks all others",
}
"""Failure fields of a stopped process."""


@attrs.define(eq=False)
class WorkerState:
    """State of one worker.

    Parameters
    ----------
    rank
        Rank of the worker.
    channel
        Connection to the worker.
    process
        Process ID; None before the fork.
    descriptor
        File descriptor that becomes readable when the process has exited, where the system has
        such.
    gone
        Time at which the process was found to be gone, by `time.monotonic`.
    code
        Exit code, or the negative number of the signal that killed the process.
    failure
        Failure of the worker, if any.
    done
        Whether the task of the worker has succeeded.
    """

    rank: int
    channel: Channel
    process: int | None = None
    descriptor: int | None = None
    gone: float | None = None
    code: int | None = None
    failure: Failure | None = None
    done: bool = False


def crash_fields(worker: WorkerState) -> FailureFields:
    """Return the failure fields of a worker that exited without a message."""
    code = worker.code
    description = "exited without a message" if code is None else describe_exit(code)
    early = " before its task ended" if code is not None and code >= 0 else ""
    return {
        "cause": "crashed",
        "description": description + early,
        "code": code,
        "hint": _crash_hint(code),
        "at": worker.gone,
    }


def fork_server_exit_fields(code: int | None) -> FailureFields:
    """Return the failure fields of a fork server that has exited."""
    description = "closed its connection" if code is None else describe_exit(code)
    return {
        "cause": "fork_server",
        "description": description,
        "code": code,
        "hint": _crash_hint(code),
    }


def stall_fields(limit: float) -> FailureFields:
    """Return the failure fields of a run without progress for ``limit`` seconds."""
    return {
        "cause": "stalled",
        "description": f"stalled: no progress on any rank for {limit:g} s",
        "hint": "allow more time (timeout), or check the place of each rank",
    }


def wait_for_exits(workers: Iterable[WorkerState], deadline: float) -> None:
    """Wait until the processes of all workers have exited, where the system can report it."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            if worker.descriptor is not None:
                selector.register(worker.descriptor, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)


def _crash_hint(code: int | None) -> str:
    """Return the hint for a process that exited without a message."""
    if code == -signal.SIGKILL:
        return (
            "something outside the run killed it: if it was not you, check dmesg for the "
            "out-of-memory killer; use a smaller batch or sequence, or more devices"
        )
    if code == -signal.SIGTERM:
        return "find the sender of SIGTERM outside the run"
    if code is not None and code < 0:
        return "read the stderr of this rank"
    return "return from the task instead of exiting the process"
