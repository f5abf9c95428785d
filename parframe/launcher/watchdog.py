"""Watchdog of a run: it receives the workers' messages, detects failures and ends all processes."""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable

from parframe.errors import ParframeError
from parframe.launcher import temporary_folder
from parframe.launcher.channel import Channel, Message
from parframe.launcher.failure_detector import CHECK_INTERVAL, FailureDetector
from parframe.launcher.failures import Failure
from parframe.launcher.fork_server_process import (
    ForkServerProcess,
    LaunchConfig,
    create_heartbeats,
    start_fork_server,
)
from parframe.launcher.processes import kill, open_pidfd, wait_for_exit
from parframe.launcher.worker_output import OutputRelay
from parframe.launcher.worker_state import WorkerState, fork_server_exit_fields, wait_for_exits

_EXIT = 1.5  # seconds that the fork server has to exit

MessageHandler = Callable[[int, Message | None], None]


class Watchdog:
    """Watchdog of one run, in a thread that lives as long as the run.

    Parameters
    ----------
    config
        Configuration of the run.
    estimates
        Expected memory of every rank, in words.
    on_message
        Called with the rank and each message of a worker, and with None at the end.
    """

    def __init__(
        self, config: LaunchConfig, estimates: list[str], on_message: MessageHandler
    ) -> None:
        self.config = config
        self.on_message = on_message
        self.ready = threading.Event()
        self.failures: list[Failure] = []
        self.error: BaseException | None = None
        self.channels: list[Channel] = []
        self.fork_server_pid = 0
        self._estimates = estimates
        self._workers: list[WorkerState] = []
        self._descriptor: int | None = None
        self._wake, self._stop = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    @property
    def processes(self) -> list[int | None]:
        """Process ID of every rank; None before its fork."""
        return [worker.process for worker in self._workers]

    def run(self) -> None:
        """Start the run and watch it until it ends."""
        try:
            try:
                self._fork_server = self._start()
            except OSError as error:
                raise ParframeError(
                    "run",
                    f"{self.config.world} workers",
                    f"cannot be started: {error}",
                    "start fewer, or allow more open files (ulimit -n) and processes (ulimit -u)",
                ) from error
            try:
                self.ready.set()
                self._watch()
            finally:
                self._end()
                self._output.close()
            self.failures = self._detector.order_failures(self._output)
        except BaseException as error:  # noqa: BLE001  # the thread that waits raises it
            self.error = error
        finally:
            self._close()
            self.ready.set()
            self.on_message(0, None)

    def stop(self) -> None:
        """End the run now, whatever its state."""
        with contextlib.suppress(OSError):
            self._stop.send(b"x")

    def _start(self) -> ForkServerProcess:
        self._descriptor, memory = create_heartbeats(self.config.world)
        self.memory: mmap.mmap = memory
        self._output = OutputRelay(self.config.world)
        fork_server = start_fork_server(self.config, self._descriptor, self._output.write_ends)
        self._output.start()
        self.fork_server_pid = fork_server.process.pid
        self.channels = fork_server.channels
        self._workers = [WorkerState(rank, c) for rank, c in enumerate(fork_server.channels)]
        self._detector = FailureDetector(self.config, self._estimates, memory, self._workers)
        register = self._selector.register
        register(self._wake, selectors.EVENT_READ, None)
        register(fork_server.channel, selectors.EVENT_READ, fork_server)
        for worker in self._workers:
            register(worker.channel, selectors.EVENT_READ, worker)
        return fork_server

    def _watch(self) -> None:
        """Handle events until the run has succeeded, has failed or is stopped."""
        while True:
            for key, _ in self._selector.select(CHECK_INTERVAL):
                if key.fileobj is self._wake:
                    return
                self._handle_event(key)
            self._detector.check_progress(self.fork_server_pid)
            if self._detector.has_failed() or self._detector.succeeded:
                return

    def _handle_event(self, key: selectors.SelectorKey) -> None:
        """Handle one descriptor that has become readable."""
        if isinstance(key.data, ForkServerProcess):
            self._receive_from_fork_server(key.data)
        else:
            worker: WorkerState = key.data
            self._receive_from_worker(worker)
            if key.fileobj is not worker.channel:
                self._selector.unregister(key.fileobj)
                worker.gone = worker.gone or time.monotonic()

    def _receive_from_fork_server(self, fork_server: ForkServerProcess) -> None:
        for message in fork_server.channel.receive_available():
            if "forked" in message:
                self._add_process(self._workers[message["forked"]], message["process"])
            elif "exited" in message:
                worker = self._workers[message["exited"]]
                worker.code = message["code"]
                self._receive_from_worker(worker)
                worker.gone = worker.gone or time.monotonic()
            elif "failed" in message:
                self._detector.add(None, **message["failed"])
        if fork_server.channel.closed:
            self._selector.unregister(fork_server.channel)
            self._check_fork_server_exit(fork_server)

    def _add_process(self, worker: WorkerState, process: int) -> None:
        worker.process = process
        worker.descriptor = open_pidfd(process)
        if worker.descriptor is not None:
            self._selector.register(worker.descriptor, selectors.EVENT_READ, worker)

    def _check_fork_server_exit(self, fork_server: ForkServerProcess) -> None:
        if self._detector.succeeded or self._detector.fork_server_failures:
            return
        code: int | None = None
        with contextlib.suppress(ChildProcessError):
            code = wait_for_exit(fork_server.process.pid, 1)
        self._detector.add(None, **fork_server_exit_fields(code))

    def _receive_from_worker(self, worker: WorkerState) -> None:
        if worker.channel.closed:
            return
        for message in worker.channel.receive_available():
            if "event" in message:
                self.on_message(worker.rank, message["event"])
            elif "failed" in message:
                self._detector.add(worker.rank, **message["failed"])
            elif "done" in message:
                worker.done = True
        if worker.channel.closed:
            self._selector.unregister(worker.channel)
            worker.gone = worker.gone or time.monotonic()
        if not self._detector.ending and all(worker.done for worker in self._workers):
            self._release_workers()

    def _release_workers(self) -> None:
        """Let the workers exit, since all tasks have ended."""
        self._detector.ending = True
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.channel.send({"end": True})

    def _end(self) -> None:
        """End all processes: the workers first, then the fork server."""
        if self._detector.succeeded:
            with contextlib.suppress(OSError):
                self._fork_server.channel.send({"end": True})
        else:
            for worker in self._workers:
                if worker.process is not None and worker.code is None:
                    kill(worker.process, worker.descriptor)
            self._fork_server.channel.close()
        process = self._fork_server.process
        failures = self._detector.fork_server_failures
        frozen = any(failure.cause == "frozen" for failure in failures)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            wait_for_exit(process.pid, 0 if frozen else _EXIT)
            os.killpg(process.pid, signal.SIGKILL)  # the children of a killed fork server
        process.wait()
        wait_for_exits(self._workers, time.monotonic() + 3)
        temporary_folder.remove(self._fork_server.folder)

    def _close(self) -> None:
        self._selector.close()
        for worker in self._workers:
            worker.channel.close()
            if worker.descriptor is not None:
                os.close(worker.descriptor)
        self._wake.close()
        self._stop.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
