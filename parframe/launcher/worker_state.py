"""What is known of each worker, and how what became of it is put in words."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Iterable
from typing import Any

import attrs

from parframe.launcher.channel import Channel
from parframe.launcher.failures import Failure
from parframe.launcher.processes import how_it_ended

Told = dict[str, Any]
"""Fields of a `Failure`: all but those that say where it was."""

FROZEN: Told = {
    "cause": "frozen",
    "how": "frozen: it was stopped by a signal and did not go on",
    "hint": "see who stopped it (SIGSTOP, SIGTSTP); a stopped rank holds up all others",
}
"""What there is to say of a process that was stopped."""


@attrs.define(eq=False)
class Member:
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


def died(member: Member) -> Told:
    """What there is to say of a worker that ended without a word."""
    code = member.code
    how = "ended without a word" if code is None else how_it_ended(code)
    early = " before it was done" if code is not None and code >= 0 else ""
    return {
        "cause": "died",
        "how": how + early,
        "code": code,
        "hint": _mend(code),
        "at": member.gone,
    }


def lost(code: int | None) -> Told:
    """What there is to say of the starting process that is gone."""
    how = "closed its connection" if code is None else how_it_ended(code)
    return {"cause": "lost", "how": how, "code": code, "hint": _mend(code)}


def stalled(limit: float) -> Told:
    """What there is to say of a run in which nobody came further for some seconds."""
    return {
        "cause": "stalled",
        "how": f"no progress for {limit:g} s, nor on any other rank",
        "hint": "allow more time (timeout), or see where each rank waits",
    }


def await_death(members: Iterable[Member], deadline: float) -> None:
    """Wait until the processes of all workers are gone, where the system tells."""
    with selectors.DefaultSelector() as selector:
        for member in members:
            if member.descriptor is not None:
                selector.register(member.descriptor, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)


def _mend(code: int | None) -> str:
    """What to do about a process that ended without a word."""
    if code == -signal.SIGKILL:
        return (
            "it was killed from outside: if not by you, then perhaps by the kernel's "
            "out-of-memory killer (see dmesg); use a smaller batch or sequence, or more devices"
        )
    if code == -signal.SIGTERM:
        return "it was ended from outside: see who did"
    if code is not None and code < 0:
        return "see what it wrote to stderr"
    return "a task must return, and not end its process"
