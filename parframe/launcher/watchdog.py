"""Watch the workers of a run: hear what they say, find out who failed and how, and end all."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.launcher import temporary_folder
from parframe.launcher.channel import Channel, Message
from parframe.launcher.failures import Failure, explained, in_order
from parframe.launcher.heartbeat import read
from parframe.launcher.processes import await_end, kill, watch
from parframe.launcher.stalls import Looking
from parframe.launcher.start import Order, Started, records, start
from parframe.launcher.worker_output import Relay
from parframe.launcher.worker_state import FROZEN, Member, Told, await_death, died, lost, stalled

TICK = 0.1
"""Seconds between two looks at the records."""

GRACE = 0.3
"""Seconds in which others may say what happened to them, after the first failure."""

_CODE = 0.6  # seconds in which the exit code of a process that is gone should arrive
_LAST_CODES = 5.0  # the same when all are done and end at once

Hear = Callable[[int, Message | None], None]


class Watch:
    """The watch over one run, in a thread that lives as long as the run.

    Parameters
    ----------
    order
        What to start.
    estimates
        What memory every rank was expected to need, in words.
    hear
        Called with what workers send, and with None at the end.
    """

    def __init__(self, order: Order, estimates: list[str], hear: Hear) -> None:
        self.order = order
        self.estimates = estimates
        self.hear = hear
        self.ready = threading.Event()
        self.failures: list[Failure] = []
        self.fault: BaseException | None = None
        self.channels: list[Channel] = []
        self.starter = 0
        self._members: list[Member] = []
        self._others: list[Failure] = []  # of the starting process, and of a run that stands still
        self._ending = False
        self._looked = 0.0
        self._descriptor: int | None = None
        self._wake, self._stop = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    @property
    def processes(self) -> list[int | None]:
        """The process of every rank, None for one that was not made yet."""
        return [member.process for member in self._members]

    def run(self) -> None:
        """Start the run and watch it to its end."""
        try:
            try:
                self._started = self._start()
            except OSError as fault:
                raise ParframeError(
                    "run",
                    f"{self.order.world} workers",
                    f"they cannot be started: {fault}",
                    "start fewer, or allow more open files (ulimit -n) and processes (ulimit -u)",
                ) from fault
            try:
                self.ready.set()
                self._watch()
            finally:
                found = self._found()
                self._end()
                self._relay.close()
            self.failures = [self._explained(failure) for failure in in_order(found)]
        except BaseException as fault:  # noqa: BLE001  # the thread that waits raises it
            self.fault = fault
        finally:
            self._close()
            self.ready.set()
            self.hear(0, None)

    def stop(self) -> None:
        """End the run now, whatever it is at."""
        with contextlib.suppress(OSError):
            self._stop.send(b"x")

    def _start(self) -> Started:
        self._descriptor, self.memory = records(self.order.world)
        self._relay = Relay(self.order.world)
        started = start(self.order, self._descriptor, self._relay.writing)
        self._relay.start()
        self.starter = started.process.pid
        self.channels = started.channels
        self._members = [Member(rank, c) for rank, c in enumerate(started.channels)]
        self._looking = Looking(self.order)
        register = self._selector.register
        register(self._wake, selectors.EVENT_READ, None)
        register(started.channel, selectors.EVENT_READ, started)
        for member in self._members:
            register(member.channel, selectors.EVENT_READ, member)
        return started

    def _watch(self) -> None:
        """Go on until all is done, somebody failed, or the run is told to stop."""
        while True:
            for key, _ in self._selector.select(TICK):
                if key.fileobj is self._wake:
                    return
                self._attend(key)
            self._look()
            if self._judge() or self._settled():
                return

    def _attend(self, key: selectors.SelectorKey) -> None:
        """Take in what one descriptor has to tell."""
        if isinstance(key.data, Started):
            self._hear_starter(key.data)
        else:
            member: Member = key.data
            self._hear_member(member)
            if key.fileobj is not member.channel:
                self._selector.unregister(key.fileobj)
                member.gone = member.gone or time.monotonic()

    def _hear_starter(self, started: Started) -> None:
        for message in started.channel.arrived():
            if "born" in message:
                self._born(self._members[message["born"]], message["process"])
            elif "ended" in message:
                member = self._members[message["ended"]]
                member.code = message["code"]
                self._hear_member(member)
                member.gone = member.gone or time.monotonic()
            elif "failed" in message:
                self._others.append(self._failure(None, **message["failed"]))
        if started.channel.closed:
            self._selector.unregister(started.channel)
            self._starter_gone(started)

    def _born(self, member: Member, process: int) -> None:
        member.process = process
        member.descriptor = watch(process)
        if member.descriptor is not None:
            self._selector.register(member.descriptor, selectors.EVENT_READ, member)

    def _starter_gone(self, started: Started) -> None:
        if self._settled() or self._others:
            return
        code: int | None = None
        with contextlib.suppress(ChildProcessError):
            code = await_end(started.process.pid, 1)
        self._others.append(self._failure(None, **lost(code)))

    def _hear_member(self, member: Member) -> None:
        if member.channel.closed:
            return
        for message in member.channel.arrived():
            if "event" in message:
                self.hear(member.rank, message["event"])
            elif "failed" in message and member.failure is None:
                member.failure = self._failure(member.rank, **message["failed"])
            elif "done" in message:
                member.done = True
        if member.channel.closed:
            self._selector.unregister(member.channel)
            member.gone = member.gone or time.monotonic()
        if not self._ending and all(member.done for member in self._members):
            self._let_go()

    def _let_go(self) -> None:
        """All are done: let the workers end."""
        self._ending = True
        for member in self._members:
            with contextlib.suppress(OSError):
                member.channel.send({"end": True})

    def _look(self) -> None:
        """Look who is stopped, and whether the run stands still; not more often than is needed."""
        now = time.monotonic()
        if now - self._looked < TICK:
            return
        self._looked = now
        seen = [read(self.memory, member.rank) for member in self._members]
        starter = read(self.memory, self.order.world)
        processes = [m.process if m.gone is None else None for m in self._members]
        for rank in self._looking.frozen(now, [*seen, starter], [*processes, self.starter]):
            self._blame(rank, FROZEN)
        for rank, limit in self._looking.stalled(now, seen, starter):
            self._blame(rank, stalled(limit))

    def _blame(self, number: int, told: Told) -> None:
        """Note what the records told of a worker, or of the process that starts them."""
        if number == self.order.world:
            self._others.append(self._failure(None, **told))
        elif self._members[number].failure is None:
            self._members[number].failure = self._failure(number, **told)

    def _judge(self) -> bool:
        """Whether the run has failed, and whoever could say something has had the time to."""
        now = time.monotonic()
        for member in self._members:
            self._judge_gone(member, now, _LAST_CODES if self._ending else _CODE)
        found = self._found()
        if not found:
            return False
        waits = [m for m in self._members if m.failure is None and not m.done]
        if waits and now - min(failure.at for failure in found) < GRACE:
            return False
        for member in waits:
            self._judge_gone(member, now, 0)  # it is gone, if nobody could say how
        return True

    def _judge_gone(self, member: Member, now: float, patience: float) -> None:
        """Judge a worker that is gone, when its exit code is known or was waited for."""
        if member.failure is not None or member.gone is None or self._ended_well(member):
            return
        if member.code is not None or now - member.gone >= patience:
            member.failure = self._failure(member.rank, **died(member))

    def _ended_well(self, member: Member) -> bool:
        return self._ending and member.gone is not None and member.code == 0

    def _found(self) -> list[Failure]:
        return [m.failure for m in self._members if m.failure is not None] + self._others

    def _settled(self) -> bool:
        """Whether all workers are done and gone."""
        return all(self._ended_well(member) for member in self._members)

    def _failure(self, rank: int | None, **told: Any) -> Failure:
        """A failure, at the place that the rank's record tells."""
        progress = read(self.memory, self.order.world if rank is None else rank)
        told.setdefault("at", time.monotonic())
        memory = told["cause"] == "memory" or told.get("code") == -signal.SIGKILL
        estimate = self.estimates[rank] if memory and rank is not None else ""
        return Failure(
            rank=rank,
            phase=progress.phase,
            step=progress.step,
            operator=progress.operator,
            estimate=estimate,
            **told,
        )

    def _explained(self, failure: Failure) -> Failure:
        """With what a worker that died without a word to the launcher wrote last."""
        if failure.rank is None or failure.cause != "died":
            return failure
        told = explained(failure, self._relay.last_words(failure.rank))
        estimate = self.estimates[failure.rank] if told.cause == "memory" else failure.estimate
        return attrs.evolve(told, estimate=estimate)

    def _end(self) -> None:
        """Have all processes gone: workers first, then the one that started them."""
        settled = self._settled()
        if settled:
            with contextlib.suppress(OSError):
                self._started.channel.send({"end": True})
        else:
            for member in self._members:
                if member.process is not None and member.code is None:
                    kill(member.process, member.descriptor)
            self._started.channel.close()
        process = self._started.process
        frozen = any(failure.cause == "frozen" for failure in self._others)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            await_end(process.pid, 0 if frozen else 1.5)
            os.killpg(process.pid, signal.SIGKILL)  # what a starting process that was killed leaves
        process.wait()
        await_death(self._members, time.monotonic() + 3)
        temporary_folder.remove(self._started.folder)

    def _close(self) -> None:
        self._selector.close()
        for member in self._members:
            member.channel.close()
            if member.descriptor is not None:
                os.close(member.descriptor)
        self._wake.close()
        self._stop.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
