"""The starting process: imports once what all workers need, makes them, and tells how they end."""

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
from parframe.launcher.failures import described
from parframe.launcher.heartbeat import Record
from parframe.launcher.processes import adopt_orphans, end_children, kill
from parframe.launcher.worker import BEAT, FAILED, Start, Task, work

Prepare = Callable[[Mapping[str, Any], "mmap.mmap | bytes"], Any]


def main(tasks: Mapping[str, Task], prepare: Prepare | None = None) -> NoReturn:
    """Be the starting process; the module that calls this is named to `Launch`.

    Parameters
    ----------
    tasks
        The tasks by name.
    prepare
        Makes of the facts and the bytes what all workers share, before there are any; what it
        imports is imported once for all. It must start no threads and touch no accelerator.
    """
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    message = channel.receive()
    if message is None:
        end_all(FAILED)
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nursery = _Nursery(channel, message)
    try:
        nursery.prepare(tasks, prepare)
        nursery.make()
    except BaseException as fault:  # noqa: BLE001  # whatever it is, the launcher must know
        nursery.send({"failed": described(fault)})
        nursery.end(FAILED)
    nursery.watch()


def end_all(code: int) -> NoReturn:
    """Kill whatever this process has started, remove the run's temporary files, and end."""
    end_children()
    temporary_folder.remove(temporary_folder.of(os.environ))
    os._exit(code)


def _named(tasks: Mapping[str, Task], name: str) -> Task:
    if name not in tasks:
        raise ParframeError(
            "run",
            f"task {name!r}",
            f"there is no such task{did_you_mean(name, tasks)}",
            f"name one of {', '.join(tasks)}",
        )
    return tasks[name]


def _check_threads() -> None:
    """A worker has no thread but one, and would wait for ever for what another thread holds."""
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if others:
        raise ParframeError(
            "run",
            f"thread {others[0]!r}",
            "it was started before the workers were made",
            "let whatever is imported or prepared for all workers start no threads",
        )


class _Nursery:
    """The state of the starting process.

    Parameters
    ----------
    channel
        The connection to the launcher.
    message
        What the launcher sent first.
    """

    def __init__(self, channel: Channel, message: Message) -> None:
        self.channel = channel
        self.message = message
        self.world: int = message["world"]
        self.memory = mmap.mmap(message["records"], 0)
        self.record = Record(self.memory, self.world)
        self.blob = mmap.mmap(message["blob"], 0, prot=mmap.PROT_READ) if message["bytes"] else b""
        self.connections = [socket.socket(fileno=number) for number in message["workers"]]
        for descriptor in (message["records"], message["blob"]):
            os.close(descriptor)
        self.alive: dict[int, int] = {}  # ranks by process
        self.told: set[int] = set()
        self.shared: Any = None

    def prepare(self, tasks: Mapping[str, Task], prepare: Prepare | None) -> None:
        """Import and read what all workers share."""
        self.record.phase("import")
        self.record.beat()
        self.task = _named(tasks, self.message["task"])
        import torch.distributed  # noqa: F401  # once for all workers

        if prepare is not None:
            self.record.phase("prepare")
            self.shared = prepare(self.message["facts"], self.blob)

    def make(self) -> None:
        """Make the workers, then the store at which they meet."""
        _check_threads()
        self.record.phase("fork")
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
        gc.freeze()  # so that the workers share what is there, and do not copy it by counting
        for rank in range(self.world):
            if not self.channel.closed:
                self._fork(rank, listener)
        for connection in self.connections:
            connection.close()
        for descriptor in self.message["outputs"]:
            os.close(descriptor)
        self._open_store(listener)

    def watch(self) -> NoReturn:
        """Tell of every worker that ends, until all have or the launcher is gone."""
        self.record.phase("watch")
        poller = select.poll()
        poller.register(self.channel.connection, select.POLLIN)
        poller.register(self.wakeup[0], select.POLLIN)
        while not self.channel.closed:
            self.record.beat()
            poller.poll(BEAT * 1000)
            self._drain()
            self._tell_ended()
            for message in self.channel.arrived():
                if "end" in message:
                    self.end(0)
        self.end(FAILED)

    def send(self, message: Message) -> None:
        """Tell the launcher, or note that it is gone."""
        try:
            self.channel.send(message)
        except OSError:
            self.channel.closed = True

    def end(self, code: int) -> NoReturn:
        """Kill whoever is left, wait for all, and end."""
        for process in self.alive:
            kill(process)
        for process in self.alive:
            os.waitpid(process, 0)
        end_all(code)

    def _fork(self, rank: int, listener: socket.socket) -> None:
        parent = os.getpid()
        process = os.fork()
        if process:
            self.alive[process] = rank
            self.record.beat()
            self.send({"born": rank, "process": process})
            self._tell_ended()
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what is here is the starting process's
        code = FAILED
        try:
            code = work(self._start(rank, parent, listener), self.task)
        finally:
            os._exit(code)  # nothing of the starting process is to be ended here

    def _start(self, rank: int, parent: int, listener: socket.socket) -> Start:
        """Keep what is the worker's own, and close what is not."""
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
        return Start(
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
        """Let the store listen where the listener does, on the loopback interface only."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        port = listener.getsockname()[1]
        self.store = TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def _tell_ended(self) -> None:
        """Tell who ended; its number stays taken until this process ends."""
        for process, rank in self.alive.items():
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            ended = os.waitid(os.P_PID, process, options)
            if ended is not None and rank not in self.told:
                self.told.add(rank)
                signalled = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
                code = -ended.si_status if signalled else ended.si_status
                self.send({"ended": rank, "code": code})

    def _drain(self) -> None:
        try:
            while os.read(self.wakeup[0], 4096):
                pass
        except BlockingIOError:
            return
