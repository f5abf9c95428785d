"""One worker: what it was given, how it tells of its progress, how it runs a task to its end."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import mmap
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from parframe.errors import ParframeError
from parframe.launcher.channel import Channel, Message
from parframe.launcher.failures import described
from parframe.launcher.heartbeat import Record
from parframe.launcher.processes import die_with

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

BEAT = 0.25
"""Seconds between two heartbeats."""

FAILED = 1
"""The exit code of a worker that told what went wrong."""


@attrs.frozen(eq=False)
class Worker:
    """What a task is given, and how it speaks with the launcher.

    Parameters
    ----------
    rank, world
        Which worker it is, and of how many.
    facts
        The facts that the launcher gave, the same for all.
    blob
        The bytes that the launcher gave, the same memory for all.
    shared
        What the starting process prepared once for all, before it made the workers.
    store
        A store of torch.distributed that all workers share.
    timeout
        Seconds that a communication may take; give it to every process group.
    threads
        How many threads torch uses here.
    """

    rank: int
    world: int
    facts: Mapping[str, Any]
    blob: mmap.mmap | bytes
    shared: Any
    store: Store
    timeout: float
    threads: int
    _record: Record
    _channel: Channel

    def phase(self, name: str) -> None:
        """Begin a phase, such as `load`; each has its own time in which something must happen."""
        self._record.phase(name)

    def step(self, number: int) -> None:
        """Begin a step of the phase."""
        self._record.step(number)

    def operator(self, name: str) -> None:
        """Begin an operator, or whatever is named in an error as the place; costs below 1 us."""
        self._record.operator(name)

    def send(self, message: Message) -> None:
        """Send a message to the launcher: what JSON can say."""
        self._channel.send({"event": message})

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for a message of the launcher.

        Parameters
        ----------
        timeout
            How many seconds to wait; None for ever.

        Returns
        -------
        dict or None
            The message, or None if none came in time.
        """
        self._record.waiting(True)
        message = self._channel.receive(timeout)
        self._record.waiting(False)
        if self._channel.closed:
            os._exit(FAILED)  # nobody is there to whom this could be told
        return None if message is None else message["event"]


Task = Callable[[Worker], None]


@attrs.frozen(eq=False)
class Start:
    """What the starting process hands to a worker that it has just made.

    Parameters
    ----------
    rank, world
        Which worker it is, and of how many.
    parent
        The starting process.
    channel
        The connection to the launcher.
    memory
        The records of all ranks.
    port
        Where the store listens on the loopback interface.
    facts, blob, shared, timeout, threads
        As in `Worker`.
    """

    rank: int
    world: int
    parent: int
    channel: Channel
    memory: mmap.mmap
    port: int
    facts: Mapping[str, Any]
    blob: mmap.mmap | bytes
    shared: Any
    timeout: float
    threads: int


def work(start: Start, task: Task) -> int:
    """Run a task in a worker, and tell how it ended.

    Parameters
    ----------
    start
        What the starting process hands over.
    task
        What to do.

    Returns
    -------
    int
        The exit code: 0 when the task has ended well on all ranks.
    """
    record = Record(start.memory, start.rank)
    try:
        _settle(start, record)
        record.phase("rendezvous")
        task(_meet(start, record))
    except BaseException as fault:  # noqa: BLE001  # whatever it is, the launcher must know
        _tell(start.channel, fault)
        return FAILED
    record.done()
    return _end(start.channel)


def _settle(start: Start, record: Record) -> None:
    """Make a process of its own of what was just a copy of the starting process."""
    die_with(start.parent)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    faulthandler.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    record.beat()
    beating = threading.Thread(target=_beat, args=(start.channel, record), daemon=True)
    beating.start()


def _beat(channel: Channel, record: Record) -> None:
    """Beat until the launcher is gone; then there is nobody to work for."""
    poller = select.poll()
    poller.register(channel.connection, getattr(select, "POLLRDHUP", 0))
    while not poller.poll(BEAT * 1000):
        record.beat()
    os._exit(FAILED)


def _meet(start: Start, record: Record) -> Worker:
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    torch.set_num_threads(start.threads)
    store = TCPStore(
        "127.0.0.1",
        start.port,
        is_master=False,
        timeout=timedelta(seconds=start.timeout),
        wait_for_workers=False,
    )
    return Worker(
        start.rank,
        start.world,
        start.facts,
        start.blob,
        start.shared,
        store,
        start.timeout,
        start.threads,
        record,
        start.channel,
    )


def _end(channel: Channel) -> int:
    """Stay until all have ended, since a peer may still read what this one sent."""
    with contextlib.suppress(OSError):
        _flush()
        channel.send({"done": True})
        while not channel.closed:
            message = channel.receive()
            if message is not None and "end" in message:
                return 0
    return FAILED


def _tell(channel: Channel, fault: BaseException) -> None:
    with contextlib.suppress(OSError):
        _flush()
        channel.send({"failed": described(_of_exit(fault))})


def _of_exit(fault: BaseException) -> BaseException:
    """A task that ends its process has not ended well, whatever the code."""
    if not isinstance(fault, SystemExit):
        return fault
    code = 0 if fault.code is None else fault.code
    return ParframeError(
        "run", "the task", f"left with exit code {code} before it was done", "return instead"
    )


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
