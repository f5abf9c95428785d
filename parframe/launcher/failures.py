"""What went wrong on which rank, which of several failures came first, and the error they make."""

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

CAUSES = ("lost", "died", "frozen", "exception", "memory", "stalled", "communication")
"""Kinds of failure, those that cause others before those that follow from others.

`lost`: the process that starts the others is gone. `died`: a process ended without a word.
`frozen`: it was stopped. `exception`: it raised an error of its own. `memory`: it ran out of
memory. `stalled`: no rank came further in time. `communication`: the connection to a peer broke.
"""

_RANKED = {cause: (0, 1, 2, 3, 3, 4, 5)[at] for at, cause in enumerate(CAUSES)}
_SHOWN = 8
_LINE = 400

_NO_MEMORY = re.compile(
    r".*(can('t|not) allocate memory|not enough memory|out of memory|bad_alloc).*", re.IGNORECASE
)
_MEND_MEMORY = "use a smaller batch or sequence, or more devices"
_BROKEN = re.compile(
    r"connection (closed|reset|refused|aborted)|broken pipe|timed? ?out|recvvalue failed|"
    r"connect failed|failed to (recv|send|connect)|remote process|no route to host",
    re.IGNORECASE,
)
_WHAT = re.compile(r"what\(\):\s*(.+)")
_SIZES = re.compile(r"op\.preamble\.length|data size doesn't match")
_NOISE = re.compile(r"^\[/[^]]*\] |\.? This is typically caused by .*$")


@attrs.frozen
class Failure:
    """One failure of one rank.

    Parameters
    ----------
    rank
        The rank; None for the process that starts the others.
    cause
        One of `CAUSES`.
    how
        What happened, in words.
    phase, step, operator
        Where it was.
    at
        When, by `time.monotonic`.
    hint
        What to do about it.
    kind
        The kind of `ParframeError` that it makes.
    place
        More of where, if the error itself said.
    estimate
        What the rank was expected to need, for one that ran out of memory.
    code
        Its exit code, or a signal's number below zero; None if it did not end by itself.
    traceback
        The traceback of an exception.
    """

    rank: int | None
    cause: str = attrs.field(validator=attrs.validators.in_(CAUSES))
    how: str
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
        """The rank and what it was at."""
        who = "the starting process" if self.rank is None else f"rank {self.rank}"
        progress = Progress(0, self.phase, self.step, self.operator, 0, 0, False, False)
        return f"{who}, {progress}" + (f", {self.place}" if self.place else "")

    @property
    def what(self) -> str:
        """What happened, with the estimate beside it where there is one."""
        return f"{self.how} (expected: {self.estimate})" if self.estimate else self.how


class RunError(ParframeError):
    """A run that failed: the first failure, and what followed from it.

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
        lines = [f"  then {f.where}: {f.what}" for f in others[:_SHOWN]]
        if len(others) > _SHOWN:
            lines.append(f"  and {len(others) - _SHOWN} more")
        return "\n".join([super().__str__(), *lines])


def in_order(failures: Iterable[Failure]) -> list[Failure]:
    """Order failures by cause, then by time.

    A process that gave up because a peer's connection broke (SIGABRT from a library) is not taken
    for the cause of what a peer reported by itself.

    Parameters
    ----------
    failures
        The failures, in any order.

    Returns
    -------
    list of Failure
        The first failure first, one for each rank.
    """
    found: dict[int | None, Failure] = {}
    for failure in sorted(failures, key=lambda f: (_precedence(f), f.at)):
        found.setdefault(failure.rank, failure)
    return list(found.values())


def _precedence(failure: Failure) -> int:
    aborted = failure.cause == "died" and failure.code == -signal.SIGABRT
    return _RANKED["exception" if aborted else failure.cause]


def described(fault: BaseException) -> dict[str, Any]:
    """An exception as a message to the launcher.

    Parameters
    ----------
    fault
        What was raised.

    Returns
    -------
    dict
        The fields of a `Failure` that the exception tells.
    """
    told: dict[str, Any] = {
        "at": time.monotonic(),
        "cause": _cause(fault),
        "traceback": "".join(traceback.format_exception(fault))[-20_000:],
    }
    if isinstance(fault, ParframeError):
        return told | {
            "kind": fault.kind,
            "place": fault.where,
            "how": fault.what,
            "hint": fault.hint,
        }
    if told["cause"] == "memory":
        return told | {
            "kind": "memory",
            "how": f"out of memory: {_first_line(fault)}",
            "hint": _MEND_MEMORY,
        }
    if told["cause"] == "communication":
        return told | {
            "how": f"lost a peer: {_first_line(fault)}",
            "hint": "see what happened to the other ranks, or allow more time",
        }
    if _SIZES.search(str(fault)):
        return told | _of_sizes(str(fault))
    return told | {
        "how": f"{type(fault).__name__}: {_first_line(fault)}",
        "hint": "see its traceback, which --debug prints",
    }


def _cause(fault: BaseException) -> str:
    if isinstance(fault, ParframeError):
        if fault.__cause__ is not None:
            return _cause(fault.__cause__)
        return "memory" if fault.kind == "memory" else "exception"
    kinds = {kind.__name__ for kind in type(fault).__mro__}
    text = str(fault)
    if kinds & {"MemoryError", "OutOfMemoryError"} or _NO_MEMORY.search(text):
        return "memory"
    if "DistError" in kinds or isinstance(fault, ConnectionError):
        return "communication"
    return "communication" if "RuntimeError" in kinds and _BROKEN.search(text) else "exception"


def explained(failure: Failure, words: str) -> Failure:
    """A process that died, with the reason that it wrote before.

    Parameters
    ----------
    failure
        How it died.
    words
        The end of what it wrote.

    Returns
    -------
    Failure
        The failure, with the reason where there was one.
    """
    if (missing := _NO_MEMORY.search(words)) is not None:
        how = f"{failure.how}, out of memory: {_first_line(missing[0])}"
        return attrs.evolve(failure, cause="memory", kind="memory", how=how, hint=_MEND_MEMORY)
    found = _WHAT.search(words)
    if found is None:
        return failure
    if _SIZES.search(found[1]):
        told = _of_sizes(found[1])
        return attrs.evolve(failure, how=told["how"], hint=told["hint"])
    return attrs.evolve(failure, how=f"{failure.how}: {_first_line(found[1])}")


def _of_sizes(text: str) -> dict[str, str]:
    sizes = re.search(r"(\d+) vs\.? (\d+)", text)
    bytes_ = f": {sizes[1]} bytes came where {sizes[2]} were expected" if sizes else ""
    return {
        "how": "a peer sent more than fits, so the ranks are not in the same collective"
        f" or give it different shapes{bytes_}",
        "hint": "compare what this rank and its peers do at this place",
    }


def _first_line(fault: BaseException | str) -> str:
    line = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    line = _NOISE.sub("", line)
    return line if len(line) <= _LINE else line[:_LINE] + " ..."
