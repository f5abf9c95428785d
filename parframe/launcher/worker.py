"""Worker of a run: its context, its heartbeat, and the execution of its task."""

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
from parframe.launcher.failures import describe_exception
from parframe.launcher.heartbeat import Heartbeat
from parframe.launcher.processes import exit_with_parent

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

HEARTBEAT_INTERVAL = 0.25
"""Seconds between two heartbeats."""

EXIT_FAILED = 1
"""Exit code of a worker that reported a failure."""


@attrs.frozen(eq=False)
class Worker:
    """Context of a task: rank, inputs, and the connection to the launcher.

    Parameters
    ----------
    rank, world
        Rank and world size.
    facts
        JSON data of the launcher, equal on all ranks.
    blob
        Bytes of the launcher, in shared memory.
    shared
        Data that the fork server prepared once for all workers.
    store
        Store of torch.distributed that all workers share.
    timeout
        Timeout of communication in seconds; pass it to every process group.
    threads
        Number of torch threads.
    """

    rank: int
    world: int
    facts: Mapping[str, Any]
    blob: mmap.mmap | bytes
    shared: Any
    store: Store
    timeout: float
    threads: int
    _heartbeat: Heartbeat
    _channel: Channel

    def phase(self, name: str) -> None:
        """Begin a phase, such as `load`; each phase has its own time limit for progress."""
        self._heartbeat.begin_phase(name)

    def step(self, number: int) -> None:
        """Begin a step of the phase."""
        self._heartbeat.begin_step(number)

    def operator(self, name: str) -> None:
        """Begin an operator, or anything that errors should name as the place; takes below 1 us."""
        self._heartbeat.begin_operator(name)

    def send(self, message: Message) -> None:
        """Send JSON data to the launcher."""
        self._channel.send({"event": message})

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for a message of the launcher; return None after the timeout."""
        self._heartbeat.set_waiting(True)
        message = self._channel.receive(timeout)
        self._heartbeat.set_waiting(False)
        if self._channel.closed:
            os._exit(EXIT_FAILED)  # the launcher is gone
        return None if message is None else message["event"]


Task = Callable[[Worker], None]


@attrs.frozen(eq=False)
class WorkerStart:
    """Data that the fork server passes to a forked worker.

    Parameters
    ----------
    rank, world
        Rank and world size.
    parent
        Process ID of the fork server.
    channel
        Connection to the launcher.
    memory
        Shared memory of all heartbeats.
    port
        Port of the store on the loopback interface.
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


def run_worker(start: WorkerStart, task: Task) -> int:
    """Run a task in a worker, report its end, and return the exit code."""
    heartbeat = Heartbeat(start.memory, start.rank)
    try:
        _set_up_process(start, heartbeat)
        heartbeat.begin_phase("rendezvous")
        task(_create_worker(start, heartbeat))
    except BaseException as error:  # noqa: BLE001  # the launcher must report any error
        _report(start.channel, error)
        return EXIT_FAILED
    heartbeat.set_done()
    return _wait_for_release(start.channel)


def _set_up_process(start: WorkerStart, heartbeat: Heartbeat) -> None:
    """Give a forked process its own signal handlers, output and heartbeat thread."""
    exit_with_parent(start.parent)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    faulthandler.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    heartbeat.beat()
    beating = threading.Thread(
        target=_send_heartbeats, args=(start.channel, heartbeat), daemon=True
    )
    beating.start()


def _send_heartbeats(channel: Channel, heartbeat: Heartbeat) -> None:
    """Send heartbeats until the launcher is gone, then exit."""
    poller = select.poll()
    poller.register(channel.connection, getattr(select, "POLLRDHUP", 0))
    while not poller.poll(HEARTBEAT_INTERVAL * 1000):
        heartbeat.beat()
    os._exit(EXIT_FAILED)


def _create_worker(start: WorkerStart, heartbeat: Heartbeat) -> Worker:
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
        heartbeat,
        start.channel,
    )


def _wait_for_release(channel: Channel) -> int:
    """Wait until all ranks are done, since a peer may still read data of this one."""
    with contextlib.suppress(OSError):
        _flush()
        channel.send({"done": True})
        while not channel.closed:
            message = channel.receive()
            if message is not None and "end" in message:
                return 0
    return EXIT_FAILED


def _report(channel: Channel, error: BaseException) -> None:
    with contextlib.suppress(OSError):
        _flush()
        channel.send({"failed": describe_exception(_convert_exit(error))})


def _convert_exit(error: BaseException) -> BaseException:
    """Convert a SystemExit of a task to an error, whatever its code."""
    if not isinstance(error, SystemExit):
        return error
    code = 0 if error.code is None else error.code
    return ParframeError(
        "run", "the task", f"called exit with code {code} before it ended", "return from the task"
    )


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
