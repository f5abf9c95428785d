"""What every rank is doing, in shared memory without a name: one record of fixed size a rank."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time

import attrs

SIZE = 256
"""Bytes of a record."""

_BEAT = struct.Struct("<d")
_PROGRESS = struct.Struct("<dq")
_COUNT = struct.Struct("<q")
_RECORD = struct.Struct("<ddqBB30s128sq")
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
    """What one rank was doing when its record was read.

    Parameters
    ----------
    rank
        The rank; the number of ranks stands for the process that starts the others.
    phase
        What it is at, such as `load` or `step`.
    step
        The number of its step, or None before the first.
    operator
        The operator it is in, or an empty text.
    beat
        When its heartbeat was last seen, by `time.monotonic`; 0 before the first.
    progressed
        When it last came further, by `time.monotonic`; 0 before it began.
    waiting
        Whether it waits for a message of the launcher.
    done
        Whether its task has ended well.
    operators
        How many operators it has begun in its step.
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
        """Seconds since it last came further."""
        return time.monotonic() - self.progressed

    def __str__(self) -> str:
        """Where it is, such as `step 17 at model.layers.3`."""
        place = self.phase or "start"
        if self.step is not None:
            place = f"step {self.step}" if place == "step" else f"{place}, step {self.step}"
        return f"{place} at {self.operator}" if self.operator else place


class Record:
    """The record of one rank, for the process that writes it; a write takes less than 1 us.

    Parameters
    ----------
    memory
        The memory of all records.
    rank
        Whose record it is.
    """

    def __init__(self, memory: mmap.mmap, rank: int) -> None:
        self._memory = memory
        self._at = rank * SIZE
        self._operators = 0

    def beat(self) -> None:
        """Say that the process is alive."""
        _BEAT.pack_into(self._memory, self._at + _AT_BEAT, time.monotonic())

    def progress(self) -> None:
        """Say that the process came further."""
        _BEAT.pack_into(self._memory, self._at + _AT_PROGRESS, time.monotonic())

    def phase(self, name: str) -> None:
        """Begin a phase, which is in no step and no operator yet."""
        self._text(_AT_OPERATOR, _OPERATOR, "")
        self._text(_AT_PHASE, _PHASE, name)
        self.step(_NO_STEP)

    def step(self, number: int) -> None:
        """Begin a step."""
        self._count(0)
        _PROGRESS.pack_into(self._memory, self._at + _AT_PROGRESS, time.monotonic(), number)

    def operator(self, name: str) -> None:
        """Begin an operator."""
        self._text(_AT_OPERATOR, _OPERATOR, name)
        self._count(self._operators + 1)
        self.progress()

    def waiting(self, waits: bool) -> None:
        """Say whether the process waits for a message of the launcher."""
        self._memory[self._at + _AT_WAITING] = waits
        self.progress()

    def done(self) -> None:
        """Say that the task has ended well."""
        self._memory[self._at + _AT_DONE] = True

    def _count(self, operators: int) -> None:
        self._operators = operators
        _COUNT.pack_into(self._memory, self._at + _AT_OPERATORS, operators)

    def _text(self, offset: int, size: int, text: str) -> None:
        at = self._at + offset
        self._memory[at : at + size] = text.encode()[-size:].ljust(size, b"\0")


def read(memory: mmap.mmap, rank: int) -> Progress:
    """Read the record of a rank.

    Parameters
    ----------
    memory
        The memory of all records.
    rank
        Whose record to read.

    Returns
    -------
    Progress
        What it says.
    """
    beat, progressed, step, done, waiting, phase, operator, operators = _RECORD.unpack_from(
        memory, rank * SIZE
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


def clear(memory: mmap.mmap, count: int) -> None:
    """Begin all records, before anybody writes them."""
    for rank in range(count):
        Record(memory, rank).phase("start")


def anonymous(name: str, size: int) -> int:
    """Make a file without a name in memory, or in a temporary folder where there is no such thing.

    Parameters
    ----------
    name
        What it is called where the system lists open files.
    size
        Its bytes.

    Returns
    -------
    int
        Its file descriptor; nothing is left when every process that holds it is gone.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
