"""Launch of the workers of a run on this node, and messages to and from them."""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import attrs

from parframe.errors import ParframeError
from parframe.launcher.channel import Message
from parframe.launcher.failures import Failure, RunError
from parframe.launcher.fork_server_process import LaunchConfig
from parframe.launcher.heartbeat import Progress, read_progress
from parframe.launcher.processes import count_cpus
from parframe.launcher.watchdog import Watchdog

TIMEOUT = 600.0
"""Default time limit, in seconds, for progress in a phase."""

_JOIN_TIMEOUT = 6.0

_ACTIVE: list[Launch] = []  # for displays of running launches


@attrs.frozen
class Event:
    """Message of a worker."""

    rank: int
    message: Message


class Launch:
    """Run of several workers on this node, as a context manager: leaving it ends all workers.

    Parameters
    ----------
    module
        Module that calls `parframe.launcher.fork_server.main`, or the path of its file.
    task
        Name of the task in the table that this module passes.
    world
        Number of workers.
    facts
        JSON data for every worker.
    blob
        Bytes for every worker, shared and not copied.
    threads
        Number of torch threads of a worker (default: the CPUs divided by the workers).
    timeout
        Seconds without progress on any rank after which the run has failed.
    timeouts
        Time limits of single phases, by name.
    estimates
        Expected memory of every rank, in words, for the error message of a rank that runs out
        of memory.
    environment
        Environment variables for the workers, in addition to those of this process.

    Raises
    ------
    ParframeError
        If the number of workers is below 1, or the estimates are not one for each worker.

    Examples
    --------
    A module `greeting.py` has the task:

    .. code-block:: python

        from parframe.launcher import fork_server

        def greet(worker):
            worker.phase("step")
            worker.send({"hello": worker.rank})

        if __name__ == "__main__":
            fork_server.main({"greet": greet})

    and any program runs it:

    .. code-block:: python

        with Launch("greeting.py", "greet", world=4) as run:
            for event in run.events():
                print(event.rank, event.message)
    """

    def __init__(
        self,
        module: str,
        task: str,
        world: int,
        facts: Mapping[str, Any] | None = None,
        blob: bytes | memoryview = b"",
        *,
        threads: int | None = None,
        timeout: float = TIMEOUT,
        timeouts: Mapping[str, float] | None = None,
        estimates: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if world < 1:
            raise ParframeError(
                "run", f"{world} workers", "there is nothing to start", "use at least 1"
            )
        if estimates is not None and len(estimates) != world:
            raise ParframeError(
                "run",
                f"{len(estimates)} estimates",
                f"there are {world} workers",
                "pass one estimate for each worker",
            )
        self.world = world
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._raised = False
        self._estimates = list(estimates or [""] * world)
        self._config = LaunchConfig(
            module=module,
            task=task,
            world=world,
            facts=dict(facts or {}),
            blob=blob,
            threads=threads or max(1, count_cpus() // world),
            timeout=timeout,
            timeouts=dict(timeouts or {}),
            environment=dict(environment or {}),
        )

    def __enter__(self) -> Self:
        self._watchdog = Watchdog(self._config, self._estimates, self._put_event)
        self._thread = threading.Thread(
            target=self._watchdog.run, name="parframe-launch", daemon=True
        )
        self._thread.start()
        try:
            self._watchdog.ready.wait()
        except BaseException:
            self._watchdog.stop()
            raise
        if not self._watchdog.channels:
            self._raise()
        _ACTIVE.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _ACTIVE:
            _ACTIVE.remove(self)
        failed = bool(self._watchdog.failures)
        self._watchdog.stop()
        self._thread.join(_JOIN_TIMEOUT)
        if kind is None and failed:
            self._raise()

    def send(self, rank: int, message: Message) -> None:
        """Send a message to a worker; block while many earlier messages are unread.

        Raises
        ------
        RunError
            If the run has failed.
        """
        try:
            self._watchdog.channels[rank].send({"event": message})
        except OSError:
            self._thread.join(_JOIN_TIMEOUT)  # it finds out why the worker is gone
            self._raise()
            raise

    def events(self) -> Iterator[Event]:
        """Yield the messages of the workers as they arrive, until all are done.

        Yields
        ------
        Event
            The next message.

        Raises
        ------
        RunError
            If the run has failed, after all processes have ended.
        """
        while (event := self._events.get()) is not None:
            yield event
        self._events.put(None)  # so that a second call ends as well
        self._thread.join(_JOIN_TIMEOUT)
        self._raise()

    def wait(self) -> None:
        """Wait until all workers are done; raise as `events` does."""
        for _ in self.events():
            pass

    def progress(self) -> list[Progress]:
        """Return the current progress of every rank."""
        memory: mmap.mmap = self._watchdog.memory
        return [read_progress(memory, rank) for rank in range(self.world)]

    @property
    def failed(self) -> tuple[Failure, ...]:
        """Failures so far, the first cause first; empty while no rank has failed."""
        return tuple(self._watchdog.failures)

    @property
    def processes(self) -> list[int | None]:
        """Process ID of every rank; None before its fork."""
        return self._watchdog.processes

    @property
    def fork_server_pid(self) -> int:
        """Process ID of the fork server."""
        return self._watchdog.fork_server_pid

    def _put_event(self, rank: int, message: Message | None) -> None:
        """Queue a message of a worker; None is the end of all messages."""
        self._events.put(None if message is None else Event(rank, message))

    def _raise(self) -> None:
        if self._watchdog.error is not None:
            raise self._watchdog.error
        if self._watchdog.failures and not self._raised:
            self._raised = True
            raise RunError(self._watchdog.failures)


def active_launches() -> tuple[Launch, ...]:
    """Return the launches of this process that have begun and not ended, in order."""
    return tuple(_ACTIVE)
