"""Start workers on this host, speak with them, and have all of them gone when it ends."""

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
from parframe.launcher.heartbeat import Progress, read
from parframe.launcher.processes import processors
from parframe.launcher.start import Order
from parframe.launcher.watchdog import Watch

TIMEOUT = 600.0
"""Seconds in which something must happen in a phase, unless told otherwise."""

_ENDING = 6.0

_RUNNING: list[Launch] = []  # for who wants to show what this process runs


@attrs.frozen
class Event:
    """A message of a worker.

    Parameters
    ----------
    rank
        Which worker.
    message
        What it sent.
    """

    rank: int
    message: Message


class Launch:
    """A run of several workers on this host, as a context: leaving it ends all of them.

    Parameters
    ----------
    module
        The module that calls `parframe.launcher.fork_server.main`, or the path of its file.
    task
        The name of the task in the table that this module gives.
    world
        How many workers.
    facts
        Facts for every worker: what JSON can say.
    blob
        Bytes for every worker, shared and not copied.
    threads
        How many threads torch uses in a worker; by default the processors are shared out.
    timeout
        Seconds after which a run in which no worker comes further has failed.
    timeouts
        Such seconds for phases of their own, by name.
    estimates
        For every rank, what memory it was expected to need, in words; told if that runs out.
    environment
        Variables of the environment for the workers, besides those of this process.

    Raises
    ------
    ParframeError
        If there is no worker to start, or the estimates are not one for each.

    Examples
    --------
    A module `greeting.py` has the task:

    .. code-block:: python

        from parframe.launcher import nursery

        def greet(worker):
            worker.phase("step")
            worker.send({"hello": worker.rank})

        if __name__ == "__main__":
            nursery.main({"greet": greet})

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
            raise ParframeError("run", f"{world} workers", "there is nothing to start", "ask for 1")
        if estimates is not None and len(estimates) != world:
            raise ParframeError(
                "run",
                f"{len(estimates)} estimates",
                f"there are {world} workers",
                "give one for each",
            )
        self.world = world
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._told = False
        self._estimates = list(estimates or [""] * world)
        self._order = Order(
            module=module,
            task=task,
            world=world,
            facts=dict(facts or {}),
            blob=blob,
            threads=threads or max(1, processors() // world),
            timeout=timeout,
            timeouts=dict(timeouts or {}),
            environment=dict(environment or {}),
        )

    def __enter__(self) -> Self:
        self._watch = Watch(self._order, self._estimates, self._hear)
        self._thread = threading.Thread(target=self._watch.run, name="parframe-launch", daemon=True)
        self._thread.start()
        try:
            self._watch.ready.wait()
        except BaseException:
            self._watch.stop()
            raise
        if not self._watch.channels:
            self._raise()
        _RUNNING.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _RUNNING:
            _RUNNING.remove(self)
        failed = bool(self._watch.failures)
        self._watch.stop()
        self._thread.join(_ENDING)
        if kind is None and failed:
            self._raise()

    def send(self, rank: int, message: Message) -> None:
        """Send a message to a worker; waits while much that was sent before is not yet read.

        Parameters
        ----------
        rank
            Which worker.
        message
            What JSON can say.

        Raises
        ------
        RunError
            If the run has failed.
        """
        try:
            self._watch.channels[rank].send({"event": message})
        except OSError:
            self._thread.join(_ENDING)  # it finds out why nobody is there
            self._raise()
            raise

    def events(self) -> Iterator[Event]:
        """Messages of the workers as they come, until all are done.

        Yields
        ------
        Event
            The next message.

        Raises
        ------
        RunError
            If the run has failed: as soon as that is known, with all processes gone.
        """
        while (event := self._events.get()) is not None:
            yield event
        self._events.put(None)  # so that a second call ends as well
        self._thread.join(_ENDING)
        self._raise()

    def wait(self) -> None:
        """Wait until all workers are done; raises as `events` does."""
        for _ in self.events():
            pass

    def progress(self) -> list[Progress]:
        """What every rank is doing now.

        Returns
        -------
        list of Progress
            One for each rank.
        """
        memory: mmap.mmap = self._watch.memory
        return [read(memory, rank) for rank in range(self.world)]

    @property
    def failed(self) -> tuple[Failure, ...]:
        """What is known to have failed, the first failure first; nothing while all is well."""
        return tuple(self._watch.failures)

    @property
    def processes(self) -> list[int | None]:
        """The process of every rank, None for one that was not made yet."""
        return self._watch.processes

    @property
    def starter(self) -> int:
        """The process that started the others."""
        return self._watch.starter

    def _hear(self, rank: int, message: Message | None) -> None:
        """Take what the watch heard; None when there will be no more."""
        self._events.put(None if message is None else Event(rank, message))

    def _raise(self) -> None:
        if self._watch.fault is not None:
            raise self._watch.fault
        if self._watch.failures and not self._told:
            self._told = True
            raise RunError(self._watch.failures)


def running() -> tuple[Launch, ...]:
    """The runs that this process has begun and not ended, in the order of their beginning."""
    return tuple(_RUNNING)
