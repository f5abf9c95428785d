"""Watch the workers of a run: hear what they say, find out who failed and how, and end all."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

from parframe.launching.channel import Channel, Message
from parframe.launching.failures import Failure, explained, in_order
from parframe.launching.looking import Looking
from parframe.launching.output import Relay
from parframe.launching.processes import how_it_ended, kill, watch
from parframe.launching.records import Progress, read
from parframe.launching.starting import Order, Started, records, start

TICK = 0.1
"""Seconds between two looks at the records."""

GRACE = 0.3
"""Seconds in which others may say what happened to them, after the first failure."""

_CODE = 0.6  # seconds in which the exit code of a process that is gone should arrive
_LAST_CODES = 5.0  # the same when all are done and end at once
_SIGKILL, _SIGTERM = -9, -15

Hear = Callable[[int, Message | None], None]


@attrs.define(eq=False)
class _Member:
    """What is known of one worker.

    Parameters
    ----------
    rank
        Which worker.
    channel
        The connection to it.
    process
        Its process, once it was made.
    descriptor
        Tells when the process has died, where the system has such.
    gone
        When it was found to be gone.
    code
        Its exit code, or a signal's number below zero.
    failure
        What went wrong with it.
    done
        Whether its task has ended well.
    """

    rank: int
    channel: Channel
    process: int | None = None
    descriptor: int | None = None
    gone: float | None = None
    code: int | None = None
    failure: Failure | None = None
    done: bool = False


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
        self._members: list[_Member] = []
        self._others: list[Failure] = []  # of the starting process, and of a run that stands still
        self._ending = False
        self._wake, self._stop = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._descriptor, self.memory = records(order.world)
        self._relay = Relay(order.world)

    @property
    def processes(self) -> list[int | None]:
        """The process of every rank, None for one that was not made yet."""
        return [member.process for member in self._members]

    def run(self) -> None:
        """Start the run and watch it to its end."""
        try:
            self._started = self._start()
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
        started = start(self.order, self._descriptor, self._relay.writing)
        self._relay.start()
        self.starter = started.process.pid
        self.channels = started.channels
        self._members = [_Member(rank, c) for rank, c in enumerate(started.channels)]
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
            member: _Member = key.data
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

    def _born(self, member: _Member, process: int) -> None:
        member.process = process
        member.descriptor = watch(process)
        if member.descriptor is not None:
            self._selector.register(member.descriptor, selectors.EVENT_READ, member)

    def _starter_gone(self, started: Started) -> None:
        if self._settled() or self._others:
            return
        try:
            code = started.process.wait(1)
        except subprocess.TimeoutExpired:
            lost = self._failure(None, cause="lost", how="closed its connection", mend=_mend(None))
        else:
            how = how_it_ended(code)
            lost = self._failure(None, cause="lost", how=how, code=code, mend=_mend(code))
        self._others.append(lost)

    def _hear_member(self, member: _Member) -> None:
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
        """Look who is stopped, and whether the run stands still."""
        now = time.monotonic()
        seen = [read(self.memory, member.rank) for member in self._members]
        starter = read(self.memory, self.order.world)
        processes = [m.process if m.gone is None else None for m in self._members]
        for rank in self._looking.frozen(now, [*seen, starter], [*processes, self.starter]):
            failure = self._failure(
                rank if rank < self.order.world else None,
                cause="frozen",
                how="frozen: it was stopped by a signal and did not go on",
                mend="see who stopped it (SIGSTOP, SIGTSTP); a stopped rank holds up all others",
            )
            self._blame(rank, failure)
        for rank, limit in self._looking.stalled(now, seen, starter):
            failure = self._failure(
                rank if rank < self.order.world else None,
                cause="stalled",
                how=f"no progress for {limit:g} s, nor on any other rank",
                mend="allow more time (timeout), or see where each rank waits",
            )
            self._blame(rank, failure)

    def _blame(self, rank: int, failure: Failure) -> None:
        if failure.rank is None:
            self._others.append(failure)
        elif self._members[rank].failure is None:
            self._members[rank].failure = failure

    def _judge(self) -> bool:
        """Whether the run has failed, and whoever could say something has had the time to."""
        now = time.monotonic()
        for member in self._members:
            if member.gone is not None and member.failure is None:
                self._judge_gone(member, now)
        found = self._found()
        if not found:
            return False
        waits = [m for m in self._members if m.failure is None and not m.done]
        return not waits or now - min(failure.at for failure in found) > GRACE

    def _judge_gone(self, member: _Member, now: float) -> None:
        if member.code == 0 and member.done and self._ending:
            return
        patience = _LAST_CODES if self._ending else _CODE
        if member.code is None and now - (member.gone or now) < patience:
            return  # it will be told soon
        early = " before it was done" if member.code is not None and member.code >= 0 else ""
        how = "ended without a word" if member.code is None else how_it_ended(member.code)
        member.failure = self._failure(
            member.rank,
            cause="died",
            how=how + early,
            code=member.code,
            mend=_mend(member.code),
            at=member.gone,
        )

    def _found(self) -> list[Failure]:
        return [m.failure for m in self._members if m.failure is not None] + self._others

    def _settled(self) -> bool:
        """Whether all workers are done and gone."""
        return self._ending and all(
            member.gone is not None and member.code == 0 for member in self._members
        )

    def _failure(self, rank: int | None, **told: Any) -> Failure:
        """A failure, at the place that the rank's record tells."""
        progress: Progress = read(self.memory, self.order.world if rank is None else rank)
        told.setdefault("at", time.monotonic())
        memory = told["cause"] == "memory" or told.get("code") == _SIGKILL
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
        return explained(failure, self._relay.last_words(failure.rank))

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
        try:
            process.wait(0 if any(failure.cause == "frozen" for failure in self._others) else 1.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._await_death(time.monotonic() + 3)

    def _await_death(self, deadline: float) -> None:
        poller = selectors.DefaultSelector()
        for member in self._members:
            if member.descriptor is not None:
                poller.register(member.descriptor, selectors.EVENT_READ)
        while poller.get_map() and time.monotonic() < deadline:
            for key, _ in poller.select(TICK):
                poller.unregister(key.fileobj)
        poller.close()

    def _close(self) -> None:
        self._selector.close()
        for member in self._members:
            member.channel.close()
            if member.descriptor is not None:
                os.close(member.descriptor)
        self._wake.close()
        self._stop.close()
        os.close(self._descriptor)


def _mend(code: int | None) -> str:
    """What to do about a process that ended without a word."""
    if code == _SIGKILL:
        return (
            "it was killed from outside: if not by you, then perhaps by the kernel's "
            "out-of-memory killer (see dmesg); use a smaller batch or sequence, or more devices"
        )
    if code == _SIGTERM:
        return "it was ended from outside: see who did"
    if code is not None and code < 0:
        return "see what it wrote to stderr"
    return "a task must return, and not end its process"
