"""Fork server of a run: it imports modules once, forks the workers and reports their exits."""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from parframe.errors import ParframeError, did_you_mean
from parframe.launcher import temporary_folder
from parframe.launcher.channel import Channel, Message
from parframe.launcher.failures import describe_exception
from parframe.launcher.heartbeat import Heartbeat
from parframe.launcher.processes import become_subreaper, kill, kill_children
from parframe.launcher.worker import EXIT_FAILED, HEARTBEAT_INTERVAL, Task, WorkerStart, run_worker

Prepare = Callable[[Mapping[str, Any], "mmap.mmap | bytes"], Any]
"""Function that prepares data from the facts and the bytes, once for all workers."""


def main(tasks: Mapping[str, Task], prepare: Prepare | None = None) -> NoReturn:
    """Run as the fork server; the module that calls this is passed to `Launch`.

    Parameters
    ----------
    tasks
        Tasks by name.
    prepare
        Function that receives the facts and the bytes of the run and returns the data that all
        workers share. It runs before the fork, so that its imports happen once. It must not
        start threads or use an accelerator.
    """
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    message = channel.receive()
    if message is None:
        kill_all_and_exit(EXIT_FAILED)
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _ForkServer(channel, message)
    try:
        server.prepare(tasks, prepare)
        server.fork_workers()
    except BaseException as error:  # noqa: BLE001  # the launcher must report any error
        server.send({"failed": describe_exception(error)})
        server.shut_down(EXIT_FAILED)
    server.watch()


def kill_all_and_exit(code: int) -> NoReturn:
    """Kill all descendants of this process, remove the temporary files of the run, and exit."""
    kill_children()
    temporary_folder.remove(temporary_folder.find(os.environ))
    os._exit(code)


def _find_task(tasks: Mapping[str, Task], name: str) -> Task:
    if name not in tasks:
        raise ParframeError(
            "run",
            f"task {name!r}",
            f"does not exist{did_you_mean(name, tasks)}",
            f"use one of {', '.join(tasks)}",
        )
    return tasks[name]


def _check_threads() -> None:
    """Check that no other thread runs, since a forked worker would deadlock on its locks."""
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if others:
        raise ParframeError(
            "run",
            f"thread {others[0]!r}",
            "was started before the workers were forked",
            "do not start threads in modules imported before the fork, nor in `prepare`",
        )


class _ForkServer:
    """State of the fork server."""

    def __init__(self, channel: Channel, message: Message) -> None:
        self.channel = channel
        self.message = message
        self.world: int = message["world"]
        self.memory = mmap.mmap(message["heartbeats"], 0)
        self.heartbeat = Heartbeat(self.memory, self.world)
        self.blob = mmap.mmap(message["blob"], 0, prot=mmap.PROT_READ) if message["bytes"] else b""
        self.connections = [socket.socket(fileno=number) for number in message["workers"]]
        for descriptor in (message["heartbeats"], message["blob"]):
            os.close(descriptor)
        self.processes: dict[int, int] = {}  # rank of each process
        self.reported: set[int] = set()
        self.shared: Any = None

    def prepare(self, tasks: Mapping[str, Task], prepare: Prepare | None) -> None:
        """Import modules and prepare data for all workers."""
        self.heartbeat.begin_phase("import")
        self.heartbeat.beat()
        self.task = _find_task(tasks, self.message["task"])
        import torch.distributed  # noqa: F401  # once for all workers

        if prepare is not None:
            self.heartbeat.begin_phase("prepare")
            self.shared = prepare(self.message["facts"], self.blob)

    def fork_workers(self) -> None:
        """Fork the workers, then create the store for their rendezvous."""
        _check_threads()
        self.heartbeat.begin_phase("fork")
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write)
        self.wakeup = read, write
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(self.world * 2 + 16)
        gc.collect()
        gc.freeze()  # so that reference counting does not copy shared pages
        for rank in range(self.world):
            if not self.channel.closed:
                self._fork(rank, listener)
        for connection in self.connections:
            connection.close()
        for descriptor in self.message["outputs"]:
            os.close(descriptor)
        self._open_store(listener)

    def watch(self) -> NoReturn:
        """Report the exit of every worker, until all have exited or the launcher is gone."""
        self.heartbeat.begin_phase("watch")
        poller = select.poll()
        poller.register(self.channel.connection, select.POLLIN)
        poller.register(self.wakeup[0], select.POLLIN)
        while not self.channel.closed:
            self.heartbeat.beat()
            poller.poll(HEARTBEAT_INTERVAL * 1000)
            self._drain()
            self._report_exits()
            for message in self.channel.receive_available():
                if "end" in message:
                    self.shut_down(0)
        self.shut_down(EXIT_FAILED)

    def send(self, message: Message) -> None:
        """Send a message to the launcher, or mark the channel as closed."""
        try:
            self.channel.send(message)
        except OSError:
            self.channel.closed = True

    def shut_down(self, code: int) -> NoReturn:
        """Kill the remaining workers, wait for all, and exit."""
        for process in self.processes:
            kill(process)
        for process in self.processes:
            os.waitpid(process, 0)
        kill_all_and_exit(code)

    def _fork(self, rank: int, listener: socket.socket) -> None:
        parent = os.getpid()
        process = os.fork()
        if process:
            self.processes[process] = rank
            self.heartbeat.beat()
            self.send({"forked": rank, "process": process})
            self._report_exits()
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the handler belongs to the fork server
        code = EXIT_FAILED
        try:
            code = run_worker(self._create_start(rank, parent, listener), self.task)
        finally:
            os._exit(code)  # nothing of the starting process is to be status here

    def _create_start(self, rank: int, parent: int, listener: socket.socket) -> WorkerStart:
        """Keep the descriptors of one worker, and close all others."""
        port = listener.getsockname()[1]
        listener.close()
        self.channel.close()
        for other, connection in enumerate(self.connections):
            if other != rank:
                connection.close()
        signal.set_wakeup_fd(-1)
        outputs: list[int] = self.message["outputs"]
        for standard in (1, 2):
            os.dup2(outputs[rank], standard)
        for descriptor in (*self.wakeup, *outputs):
            os.close(descriptor)
        return WorkerStart(
            rank,
            self.world,
            parent,
            Channel(self.connections[rank]),
            self.memory,
            port,
            self.message["facts"],
            self.blob,
            self.shared,
            self.message["timeout"],
            self.message["threads"],
        )

    def _open_store(self, listener: socket.socket) -> None:
        """Create the store on the listener's socket, on the loopback interface only."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        port = listener.getsockname()[1]
        self.store = TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def _report_exits(self) -> None:
        """Report exited workers; their process IDs stay reserved until this process exits."""
        for process, rank in self.processes.items():
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            status = os.waitid(os.P_PID, process, options)
            if status is not None and rank not in self.reported:
                self.reported.add(rank)
                signalled = status.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
                code = -status.si_status if signalled else status.si_status
                self.send({"exited": rank, "code": code})

    def _drain(self) -> None:
        try:
            while os.read(self.wakeup[0], 4096):
                pass
        except BlockingIOError:
            return
