"""What the system says of processes: to die with a parent, how one ended, whether it is stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_SET_CHILD_SUBREAPER = 36  # the same file's


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the system end this process as soon as its parent has died.

    Where the system cannot do that, the end of the connection to the launcher tells instead.

    Parameters
    ----------
    parent
        The process that should be the parent; if it is not any more, this process ends at once.
    by
        The signal that it is sent.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_SET_DEATH_SIGNAL, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what this process's descendants leave behind, such as a compiler."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill all children of this process and wait for them, also those that it adopts meanwhile."""
    while children := _children():
        for process in children:
            kill(process)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _children() -> list[int]:
    found: list[int] = []
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, listed.read_text().split())
    return found


def watch(process: int) -> int | None:
    """A descriptor that becomes readable when a process has died, or None if there is no such."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(process)
    except OSError:
        return None


def kill(process: int, descriptor: int | None = None) -> None:
    """Kill a process, by its descriptor where there is one, since a number may be used again."""
    with contextlib.suppress(ProcessLookupError):
        if descriptor is None:
            os.kill(process, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def await_end(child: int, seconds: float) -> int | None:
    """Wait until a child has ended, and leave it to be waited for: its number stays its own.

    Parameters
    ----------
    child
        The process.
    seconds
        How long to wait.

    Returns
    -------
    int or None
        Its exit code, or a signal's number below zero; None if it has not ended in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def is_stopped(process: int) -> bool:
    """Whether a process was stopped by a signal; one that only waits for a processor was not."""
    return _state(process) == "T"


def how_it_ended(code: int) -> str:
    """Put the end of a process in words.

    Parameters
    ----------
    code
        Its exit code, or a signal's number below zero.

    Returns
    -------
    str
        Such as `killed by SIGSEGV` or `exited with code 3`.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bind(place: int, count: int) -> tuple[int, ...]:
    """Keep this thread, and all that it starts from now on, to processors of its own.

    Processes that wait for each other all the time are otherwise woken on one another's
    processors. Where there are more processes than processors, nothing is done.

    Parameters
    ----------
    place, count
        Which of the processes on this host it is, and of how many.

    Returns
    -------
    tuple of int
        The processors, by number; empty if nothing was done.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    each = len(available) // count
    own = tuple(available[place * each : (place + 1) * each])
    if own:
        os.sched_setaffinity(0, own)
    return own


def loopback() -> str:
    """The name of this host's loopback interface."""
    import socket

    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name in ("lo", "lo0")), "lo")


def _state(process: int) -> str:
    """The letter of a process's state in /proc, or nothing where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
