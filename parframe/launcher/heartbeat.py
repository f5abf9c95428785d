"""Heartbeats and progress of all ranks, in anonymous shared memory with one slot a rank."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time

import attrs

HEARTBEAT_BYTES = 256
"""Bytes of the slot of one rank."""

_BEAT = struct.Struct("<d")
_PROGRESS = struct.Struct("<dq")
_COUNT = struct.Struct("<q")
_HEARTBEAT = struct.Struct("<ddqBB30s128sq")
_AT_BEAT = 0
_AT_PROGRESS = 8
_AT_STEP = 16
_AT_DONE = 24
_AT_WAITING = 25
_AT_PHASE, _PHASE = 26, 30
_AT_OPERATOR, _OPERATOR = 56, 128
_AT_OPERATORS = 184
_NO_STEP = -1


@attrs.frozen
class Progress:
    """Snapshot of the progress of one rank.

    Parameters
    ----------
    rank
        Rank; the world size stands for the fork server.
    phase
        Phase, such as `load` or `step`.
    step
        Number of the step; None before the first.
    operator
        Operator that runs; an empty text before the first.
    beat
        Time of the last heartbeat, by `time.monotonic`; 0 before the first.
    progressed
        Time of the last progress, by `time.monotonic`; 0 before the first.
    waiting
        Whether the rank waits for a message of the launcher.
    done
        Whether the task of the rank has succeeded.
    operators
        Number of operators begun in the step.
    """

    rank: int
    phase: str
    step: int | None
    operator: str
    beat: float
    progressed: float
    waiting: bool
    done: bool
    operators: int = 0

    @property
    def age(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self.progressed

    def __str__(self) -> str:
        """Return the place, such as `step 17 at model.layers.3`."""
        place = self.phase or "start"
        if self.step is not None:
            place = f"step {self.step}" if place == "step" else f"{place}, step {self.step}"
        return f"{place} at {self.operator}" if self.operator else place


class Heartbeat:
    """Writer of the heartbeat and the progress of one rank; a write takes less than 1 us.

    Parameters
    ----------
    memory
        Shared memory of all heartbeats.
    rank
        Rank that writes.
    """

    def __init__(self, memory: mmap.mmap, rank: int) -> None:
        self._memory = memory
        self._at = rank * HEARTBEAT_BYTES
        self._operators = 0

    def beat(self) -> None:
        """Record that the process is alive."""
        _BEAT.pack_into(self._memory, self._at + _AT_BEAT, time.monotonic())

    def record_progress(self) -> None:
        """Record that the process made progress."""
        _BEAT.pack_into(self._memory, self._at + _AT_PROGRESS, time.monotonic())

    def begin_phase(self, name: str) -> None:
        """Begin a phase, without a step or an operator yet."""
        self._write_text(_AT_OPERATOR, _OPERATOR, "")
        self._write_text(_AT_PHASE, _PHASE, name)
        self.begin_step(_NO_STEP)

    def begin_step(self, number: int) -> None:
        """Begin a step."""
        self._write_count(0)
        _PROGRESS.pack_into(self._memory, self._at + _AT_PROGRESS, time.monotonic(), number)

    def begin_operator(self, name: str) -> None:
        """Begin an operator."""
        self._write_text(_AT_OPERATOR, _OPERATOR, name)
        self._write_count(self._operators + 1)
        self.record_progress()

    def set_waiting(self, waiting: bool) -> None:
        """Record whether the process waits for a message of the launcher."""
        self._memory[self._at + _AT_WAITING] = waiting
        self.record_progress()

    def set_done(self) -> None:
        """Record that the task has succeeded."""
        self._memory[self._at + _AT_DONE] = True

    def _write_count(self, operators: int) -> None:
        self._operators = operators
        _COUNT.pack_into(self._memory, self._at + _AT_OPERATORS, operators)

    def _write_text(self, offset: int, size: int, text: str) -> None:
        at = self._at + offset
        self._memory[at : at + size] = text.encode()[-size:].ljust(size, b"\0")


def read_progress(memory: mmap.mmap, rank: int) -> Progress:
    """Read the progress of a rank."""
    beat, progressed, step, done, waiting, phase, operator, operators = _HEARTBEAT.unpack_from(
        memory, rank * HEARTBEAT_BYTES
    )
    return Progress(
        rank,
        phase.rstrip(b"\0").decode(errors="replace"),
        None if step == _NO_STEP else step,
        operator.rstrip(b"\0").decode(errors="replace"),
        beat,
        progressed,
        bool(waiting),
        bool(done),
        operators,
    )


def clear_heartbeats(memory: mmap.mmap, count: int) -> None:
    """Clear the slots of all ranks before any rank writes."""
    for rank in range(count):
        Heartbeat(memory, rank).begin_phase("start")


def create_anonymous_file(name: str, size: int) -> int:
    """Create a file in memory without a path, or in a temporary folder where that is impossible."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
