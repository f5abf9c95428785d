"""Runs of tests/support/launched.py, and whatever they might leave behind."""

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
"""The module with the tasks."""

VARIABLE = "PARFRAME_TESTED_RUN"
"""The variable of the environment by which all processes of a run are found."""


@attrs.frozen
class Traces:
    """What a run may leave: its processes, its temporary files, its shared memory.

    Parameters
    ----------
    mark
        The value of `VARIABLE` in all of its processes.
    folder
        Its folder for temporary files.
    shared
        What was in shared memory before.
    """

    mark: str
    folder: Path
    shared: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> Traces:
        """Before a run whose temporary files lie in a folder."""
        return cls(uuid.uuid4().hex, folder, _shared())

    @property
    def environment(self) -> dict[str, str]:
        """What the run's processes must be given."""
        return {VARIABLE: self.mark, "TMPDIR": str(self.folder)}

    def living(self) -> list[int]:
        """All processes of the run."""
        wanted = f"{VARIABLE}={self.mark}".encode()
        found = []
        for process in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        return found

    def left(self, within: float = 0.0) -> list[str]:
        """What is still there; waits for it to go for some seconds."""
        deadline = time.monotonic() + within
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _left(self) -> list[str]:
        return [
            *(f"process {process}" for process in self.living()),
            *(str(path) for path in self.folder.iterdir()),
            *(f"/dev/shm/{name}" for name in _shared() - self.shared if "parframe" in name),
        ]


def _shared() -> frozenset[str]:
    folder = Path("/dev/shm")
    return frozenset(path.name for path in folder.iterdir()) if folder.exists() else frozenset()


def listening(processes: list[int]) -> list[str]:
    """The addresses, in hexadecimal, at which some processes listen for connections."""
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
def launched(traces: Traces, task: str, world: int, **options: Any) -> Iterator[Launch]:
    """A run whose traces can be found."""
    with Launch(MODULE, task, world, environment=traces.environment, **options) as run:
        yield run


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.01)


def caught(run: Launch, phase: str, ranks: Collection[int]) -> None:
    """Wait until some ranks are held in a phase, the others where they wait for these."""
    until(lambda: bool(run.failed) or all(_held(run.progress()[rank], phase) for rank in ranks))


def _held(progress: Progress, phase: str) -> bool:
    at_step = progress.step == STEP or phase != "step"
    return progress.phase == phase and at_step and bool(progress.operator) and progress.age > 0.05


def failure_of(run: Launch) -> RunError:
    """The error with which a run ends."""
    try:
        run.wait()
    except RunError as error:
        return error
    raise AssertionError("the run ended well")


SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
"""Faults made from outside: the signal of each."""
