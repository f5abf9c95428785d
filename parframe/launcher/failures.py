"""Failures of ranks: their causes, their order, and the error that reports them."""

from __future__ import annotations

import re
import signal
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.launcher.heartbeat import Progress

CAUSES = ("fork_server", "crashed", "frozen", "exception", "memory", "stalled", "communication")
"""Causes of failures, ordered from those that cause others to those that follow from others.

`fork_server`: the fork server exited. `crashed`: a process exited without a message. `frozen`: a
signal stopped the process. `exception`: the task raised an error. `memory`: the process ran out of
memory. `stalled`: no rank made progress in time. `communication`: the connection to a peer broke.
"""

_PRECEDENCE = {cause: (0, 1, 2, 3, 3, 4, 5)[at] for at, cause in enumerate(CAUSES)}
_MAX_SHOWN = 8
_MAX_LINE = 400

_NO_MEMORY = re.compile(
    r".*(can('t|not) allocate memory|not enough memory|out of memory|bad_alloc).*", re.IGNORECASE
)
_MEMORY_HINT = "use a smaller batch or sequence, or more devices"
_BROKEN_CONNECTION = re.compile(
    r"connection (closed|reset|refused|aborted)|broken pipe|timed? ?out|recvvalue failed|"
    r"connect failed|failed to (recv|send|connect)|remote process|no route to host",
    re.IGNORECASE,
)
_TERMINATE_REASON = re.compile(r"what\(\):\s*(.+)")
_SIZE_MISMATCH = re.compile(r"op\.preamble\.length|data size doesn't match")
_NOISE = re.compile(r"^\[/[^]]*\] |\.? This is typically caused by .*$")


@attrs.frozen
class Failure:
    """Failure of one rank.

    Parameters
    ----------
    rank
        Rank; None for the fork server.
    cause
        One of `CAUSES`.
    description
        What happened, in words.
    phase, step, operator
        Place at which the rank was.
    at
        Time of the failure, by `time.monotonic`.
    hint
        Hint for the user.
    kind
        Kind of the `ParframeError` that reports it.
    place
        Place that the error itself gives, if any.
    estimate
        Expected memory of the rank, for a rank that ran out of memory.
    code
        Exit code of the process, or the negative number of the signal that killed it; None if
        it has not exited by itself.
    traceback
        Traceback of an exception.
    """

    rank: int | None
    cause: str = attrs.field(validator=attrs.validators.in_(CAUSES))
    description: str
    phase: str
    step: int | None
    operator: str
    at: float
    hint: str
    kind: str = "run"
    place: str = ""
    estimate: str = ""
    code: int | None = None
    traceback: str = ""

    @property
    def where(self) -> str:
        """Rank and the place at which it was."""
        subject = "the fork server" if self.rank is None else f"rank {self.rank}"
        progress = Progress(0, self.phase, self.step, self.operator, 0, 0, False, False)
        return f"{subject}, {progress}" + (f", {self.place}" if self.place else "")

    @property
    def what(self) -> str:
        """Description, with the expected memory if known."""
        return (
            f"{self.description} (expected: {self.estimate})" if self.estimate else self.description
        )


class RunError(ParframeError):
    """Error of a run that failed: the first failure and those that followed from it.

    Parameters
    ----------
    failures
        All failures, the first one first.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        first = failures[0]
        super().__init__(first.kind, first.where, first.what, first.hint)
        self.failures = tuple(failures)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures,)

    def __str__(self) -> str:
        others = self.failures[1:]
        lines = [f"  then {f.where}: {f.what}" for f in others[:_MAX_SHOWN]]
        if len(others) > _MAX_SHOWN:
            lines.append(f"  and {len(others) - _MAX_SHOWN} more")
        return "\n".join([super().__str__(), *lines])


def order_by_cause(failures: Iterable[Failure]) -> list[Failure]:
    """Sort failures by cause, then by time, and keep the first failure of each rank.

    A process that aborted because the connection to a peer broke (SIGABRT from a library) does not
    come before the failures that its peers report.
    """
    found: dict[int | None, Failure] = {}
    for failure in sorted(failures, key=lambda f: (_precedence(f), f.at)):
        found.setdefault(failure.rank, failure)
    return list(found.values())


def _precedence(failure: Failure) -> int:
    aborted = failure.cause == "crashed" and failure.code == -signal.SIGABRT
    return _PRECEDENCE["exception" if aborted else failure.cause]


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Return an exception as a message to the launcher."""
    fields: dict[str, Any] = {
        "at": time.monotonic(),
        "cause": _find_cause(error),
        "traceback": "".join(traceback.format_exception(error))[-20_000:],
    }
    if isinstance(error, ParframeError):
        return fields | {
            "kind": error.kind,
            "place": error.where,
            "description": error.what,
            "hint": error.hint,
        }
    if fields["cause"] == "memory":
        return fields | {
            "kind": "memory",
            "description": f"out of memory: {_first_line(error)}",
            "hint": _MEMORY_HINT,
        }
    if fields["cause"] == "communication":
        return fields | {
            "description": f"lost the connection to a peer: {_first_line(error)}",
            "hint": "check the failures of the other ranks, or allow more time",
        }
    if _SIZE_MISMATCH.search(str(error)):
        return fields | _size_mismatch_fields(str(error))
    return fields | {
        "description": f"{type(error).__name__}: {_first_line(error)}",
        "hint": "run with --debug to print the traceback",
    }


def _find_cause(error: BaseException) -> str:
    if isinstance(error, ParframeError):
        if error.__cause__ is not None:
            return _find_cause(error.__cause__)
        return "memory" if error.kind == "memory" else "exception"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if kinds & {"MemoryError", "OutOfMemoryError"} or _NO_MEMORY.search(text):
        return "memory"
    if "DistError" in kinds or isinstance(error, ConnectionError):
        return "communication"
    return (
        "communication"
        if "RuntimeError" in kinds and _BROKEN_CONNECTION.search(text)
        else "exception"
    )


def add_output_reason(failure: Failure, output: str) -> Failure:
    """Add the reason that a process wrote to its output before it crashed."""
    if (missing := _NO_MEMORY.search(output)) is not None:
        description = f"{failure.description}, out of memory: {_first_line(missing[0])}"
        return attrs.evolve(
            failure, cause="memory", kind="memory", description=description, hint=_MEMORY_HINT
        )
    found = _TERMINATE_REASON.search(output)
    if found is None:
        return failure
    if _SIZE_MISMATCH.search(found[1]):
        fields = _size_mismatch_fields(found[1])
        return attrs.evolve(failure, description=fields["description"], hint=fields["hint"])
    return attrs.evolve(failure, description=f"{failure.description}: {_first_line(found[1])}")


def _size_mismatch_fields(text: str) -> dict[str, str]:
    sizes = re.search(r"(\d+) vs\.? (\d+)", text)
    bytes_ = f": received {sizes[1]} bytes, expected {sizes[2]}" if sizes else ""
    return {
        "description": "a peer sent more bytes than expected: the ranks are in different "
        f"collectives or pass different shapes{bytes_}",
        "hint": "compare the operators of this rank and its peers at this place",
    }


def _first_line(error: BaseException | str) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = _NOISE.sub("", line)
    return line if len(line) <= _MAX_LINE else line[:_MAX_LINE] + " ..."
