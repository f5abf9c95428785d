"""Runs of tests/support/launched.py, and what they may leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import attrs
from faulty import STEP

from parframe.launcher import Launch, Progress, RunError

MODULE = str(Path(__file__).parent / "launched.py")
"""Module with the tasks."""

VARIABLE = "PARFRAME_TESTED_RUN"
"""Environment variable by which all processes of a run are found."""


@attrs.frozen
class Traces:
    """Leftovers of a run: its processes, its temporary files, its shared memory.

    Parameters
    ----------
    mark
        Value of `VARIABLE` in all processes of the run.
    folder
        Folder of its temporary files.
    shared
        Files in shared memory before the run.
    """

    mark: str
    folder: Path
    shared: frozenset[str]

    @classmethod
    def create(cls, folder: Path) -> Traces:
        """Create the traces of a run before it starts, with a folder for temporary files."""
        return cls(uuid.uuid4().hex, folder, _shared())

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the processes of the run."""
        return {VARIABLE: self.mark, "TMPDIR": str(self.folder)}

    def list_processes(self) -> list[int]:
        """Return the IDs of all processes of the run."""
        wanted = f"{VARIABLE}={self.mark}".encode()
        found = []
        for process in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        return found

    def list_leftovers(self, within: float = 0.0) -> list[str]:
        """Return the leftovers, after waiting some seconds for them to disappear."""
        deadline = time.monotonic() + within
        while (found := self._list_leftovers()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _list_leftovers(self) -> list[str]:
        return [
            *(f"process {process}" for process in self.list_processes()),
            *(str(path) for path in self.folder.iterdir()),
            *(f"/dev/shm/{name}" for name in _shared() - self.shared if "parframe" in name),
        ]


def _shared() -> frozenset[str]:
    folder = Path("/dev/shm")
    return frozenset(path.name for path in folder.iterdir()) if folder.exists() else frozenset()


def list_listening_addresses(processes: list[int]) -> list[str]:
    """Return the addresses, in hexadecimal, at which processes listen for connections."""
    sockets = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(descriptor))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].rpartition(":")[0])
    return found


@contextlib.contextmanager
def launch(traces: Traces, task: str, world: int, **options: Any) -> Iterator[Launch]:
    """Launch a run whose traces can be found."""
    with Launch(MODULE, task, world, environment=traces.environment, **options) as run:
        yield run


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.01)


def wait_for_pause(run: Launch, phase: str, ranks: Collection[int]) -> None:
    """Wait until some ranks pause in a phase, or the run fails."""
    wait_until(
        lambda: bool(run.failed) or all(_is_paused(run.progress()[rank], phase) for rank in ranks)
    )


def _is_paused(progress: Progress, phase: str) -> bool:
    at_step = progress.step == STEP or phase != "step"
    return progress.phase == phase and at_step and bool(progress.operator) and progress.age > 0.05


def wait_for_failure(run: Launch) -> RunError:
    """Wait for a run to end, and return its error."""
    try:
        run.wait()
    except RunError as error:
        return error
    raise AssertionError("the run succeeded")


SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
"""Signals of the faults caused from outside."""
