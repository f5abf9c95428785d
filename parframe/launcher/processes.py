"""Processes of the system: their parents, exits, states and CPUs."""

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


def exit_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the system kill this process as soon as its parent has exited.

    Where the system cannot do that, the closed connection to the launcher ends the process.

    Parameters
    ----------
    parent
        Process ID that the parent must have; if it differs, this process exits at once.
    by
        Signal that the system sends.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_SET_DEATH_SIGNAL, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Become the parent of orphaned descendants of this process, such as a compiler."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_children() -> None:
    """Kill all children of this process, including adopted ones, and wait for them."""
    while children := _list_children():
        for process in children:
            kill(process)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _list_children() -> list[int]:
    found: list[int] = []
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, listed.read_text().split())
    return found


def open_pidfd(process: int) -> int | None:
    """Return a descriptor that becomes readable when a process exits; None if unsupported."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(process)
    except OSError:
        return None


def kill(process: int, descriptor: int | None = None) -> None:
    """Kill a process, by its descriptor where there is one, since process IDs are reused."""
    with contextlib.suppress(ProcessLookupError):
        if descriptor is None:
            os.kill(process, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def wait_for_exit(child: int, seconds: float) -> int | None:
    """Wait for a child to exit, without reaping it; return None after the timeout."""
    deadline = time.monotonic() + seconds
    while True:
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def is_stopped(process: int) -> bool:
    """Return whether a signal stopped a process; a process that waits for a CPU is not stopped."""
    return _read_state(process) == "T"


def describe_exit(code: int) -> str:
    """Describe an exit code (negative for a signal) in words, such as `killed by SIGSEGV`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bind_cpus(place: int, count: int) -> tuple[int, ...]:
    """Bind this thread, and all threads it starts from now on, to CPUs of its own.

    Processes that often wait for each other would otherwise be woken on one another's CPUs. Where
    there are more processes than CPUs, nothing is bound.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    each = len(available) // count
    own = tuple(available[place * each : (place + 1) * each])
    if own:
        os.sched_setaffinity(0, own)
    return own


def find_loopback_interface() -> str:
    """Return the name of the loopback interface."""
    import socket

    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name in ("lo", "lo0")), "lo")


def _read_state(process: int) -> str:
    """Return the state letter of a process, or an empty text if there is no such process."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
