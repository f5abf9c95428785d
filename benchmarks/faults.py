"""Make faults in running processes, and print whether each was named rightly, in time, and cleanly.

Every case starts a run, brings one process to a place, and makes a fault there: a signal from
outside, or something that the process does to itself. The run must end in time with an error that
names rank, phase, step and operator, and leave nothing: no process, no file, no shared memory, no
port. ``--jobs`` cases run at once; ``--only`` takes those whose name contains a text.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from launches import MODULE, Traces, launched, listening, until

from parframe.launching import Launch, RunError

PHASES = ("rendezvous", "load", "warm-up", "step")
EARLY = ("start", "fork")  # before there is any rank, and while they are made
COLLECTIVE = ("warm-up", "step")  # phases in which ranks send to each other
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
HANG = 90.0

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
CAUSES = {
    "kill": "died",
    "term": "died",
    "segv": "died",
    "exit": "died",
    "shape": "died",
    "stop": "frozen",
    "exception": "exception",
    "memory": "memory",
    "leave": "exception",
    "abort": "died",
    "asleep": "stalled",
}
"""The cause that each kind of fault must be given."""

STALL = 3.0  # seconds without progress that are allowed where a rank falls asleep
BOUNDS = {"stop": 5.0, "asleep": STALL + 2.0}
"""Seconds within which a fault must be named; one for all others."""

ENDED = 5.0
"""Seconds within which all processes must be gone."""


@attrs.frozen
class Case:
    """One fault: who is its victim (a rank, `starter` or `launcher`), at what, and what happens."""

    world: int
    phase: str
    kind: str
    victim: int | str

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.world} ranks, {self.phase}, {self.kind}, {self.victim}"


@attrs.frozen
class Outcome:
    """What came of a case: what was wrong, and after how many seconds it was named and ended."""

    case: Case
    wrong: list[str]
    named: float = 0.0
    ended: float = 0.0


def cases() -> Iterator[Case]:
    """All faults, each at three ranks, of two sizes; then of the processes around the ranks."""
    kinds = ("kill", "stop", "segv", "term", "exception", "exit", "memory", "shape")
    for world, phase, kind in itertools.product((4, 8), PHASES, kinds):
        for victim in (0, world // 2, world - 1):
            if kind != "shape" or phase in COLLECTIVE:
                yield Case(world, phase, kind, victim)
    for world, phase in itertools.product((4, 8), EARLY + PHASES):
        for kind in ("kill", "stop", "term"):
            yield Case(world, phase, kind, "starter")
        for kind in ("kill", "term", "interrupt"):
            yield Case(world, phase, kind, "launcher")
    for phase in PHASES:
        yield Case(4, phase, "asleep", 1)
        yield Case(4, phase, "abort", 2)
        yield Case(4, phase, "leave", 3)
    for kind in ("kill", "stop"):
        yield Case(64, "step", kind, 32)


def examine(case: Case) -> Outcome:
    """Run a case in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Traces.of(Path(folder))
        examined = _of_launcher if case.victim == "launcher" else _of_run
        return examined(case, traces)


def _facts(case: Case) -> dict[str, object]:
    own = case.kind not in SIGNALS
    victim = case.victim if isinstance(case.victim, int) else case.world // 2
    kind = case.kind if own else "outside"
    return {"fault": {"kind": kind, "phase": case.phase, "victim": victim}}


def _of_run(case: Case, traces: Traces) -> Outcome:
    """A fault of a rank or of the starting process, seen by the launcher."""
    timeout = STALL if case.kind == "asleep" else 30.0
    error, made, place = None, 0.0, {}
    wrong: list[str] = []
    with launched(traces, "steps", case.world, facts=_facts(case), timeout=timeout) as run:
        try:
            if case.phase in EARLY:
                made = _signal(run, case)
            for event in run.events():
                if "fault" in event.message:
                    place = event.message
                    made = place["fault"]
                    if case.kind in SIGNALS:
                        wrong += _listeners(traces)
                        made = _signal(run, case)
        except RunError as raised:
            error = raised
        ended = time.monotonic() - made
        left = traces.left()
    if error is None:
        return Outcome(case, ["the run ended well"])
    wrong += [f"left {what}" for what in left] + _misnamed(case, error, place)
    named = error.failures[0].at - made
    if named > BOUNDS.get(case.kind, 1.0):
        wrong.append(f"named after {named:.1f} s")
    if ended - named > ENDED:
        wrong.append(f"ended {ended - named:.1f} s later")
    return Outcome(case, wrong, named, ended)


def _listeners(traces: Traces) -> list[str]:
    return [f"listens at {a}" for a in listening(traces.living()) if a not in LOOPBACK]


def _signal(run: Launch, case: Case) -> float:
    """Make the fault from outside, when the record of a rank says that it is there."""
    if case.phase in EARLY:
        until(lambda: case.phase == "start" or run.processes[0] is not None)
    else:
        rank = case.victim if isinstance(case.victim, int) else case.world // 2
        until(lambda: run.progress()[rank].phase == case.phase)
    victim = run.starter if case.victim == "starter" else run.processes[int(case.victim)]
    made = time.monotonic()
    os.kill(victim or 0, SIGNALS[case.kind])
    return made


def _misnamed(case: Case, error: RunError, place: dict[str, object]) -> list[str]:
    """What the first failure says that is not so."""
    first = error.failures[0]
    if case.victim == "starter":
        wanted = {"rank": None, "cause": "frozen" if case.kind == "stop" else "lost"}
    else:
        step = None if place["step"] == -1 else place["step"]
        wanted = {
            "rank": case.victim,
            "cause": CAUSES[case.kind],
            "phase": case.phase,
            "step": step,
            "operator": place["operator"],
        }
    return [
        f"{name} is {getattr(first, name)}, not {value}"
        for name, value in wanted.items()
        if getattr(first, name) != value
    ]


_LAUNCHER = """
import json, signal, sys, time
from parframe.launching import Launch

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it began in the background
module, world, facts, phase = sys.argv[1:]
with Launch(module, "steps", int(world), json.loads(facts)) as run:
    while phase == "fork" and run.processes[0] is None:
        time.sleep(0.001)
    if phase in ("start", "fork"):
        print("ready", flush=True)
    for event in run.events():
        if "fault" in event.message:
            print("ready", flush=True)
"""


def _of_launcher(case: Case, traces: Traces) -> Outcome:
    """A fault of the launcher itself: nobody is there to name it, and all must be gone."""
    arguments = [MODULE, str(case.world), json.dumps(_facts(case)), case.phase]
    with subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, *arguments],
        env=os.environ | traces.environment | {"PYTHONPATH": str(Path(MODULE).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as launcher:
        assert launcher.stdout is not None  # noqa: S101  # it is a pipe
        wrong = [] if launcher.stdout.readline() else ["the run did not come to the place"]
        wrong += _listeners(traces)
        made = time.monotonic()
        launcher.send_signal(SIGNALS[case.kind])
        wrong += [f"left {what}" for what in traces.left(within=ENDED)]
        ended = time.monotonic() - made
    return Outcome(case, wrong, 0.0, ended)


def _watched(case: Case) -> Outcome:
    """A case that must not hang: it runs in a thread that is not waited for longer than that."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(examine, case).result(HANG)
        except TimeoutError:
            print(f"hangs: {case.name}", file=sys.stderr)
            os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    chosen = [case for case in cases() if given.only in case.name]
    began = time.monotonic()
    outcomes = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(_watched, chosen):
            outcomes.append(outcome)
            if len(outcomes) % 20 == 0:
                print(f"{len(outcomes)} of {len(chosen)}", file=sys.stderr, flush=True)
            for what in outcome.wrong:
                print(f"{outcome.case.name}: {what}", file=sys.stderr)
    _print(outcomes, time.monotonic() - began)
    sys.exit(any(outcome.wrong for outcome in outcomes))


def _print(outcomes: list[Outcome], seconds: float) -> None:
    table = Table("victim", "fault", "faults", "right", "named, s", "gone, s", title="Faults")
    for column in table.columns[2:]:
        column.justify = "right"
    key = _row
    for (victim, kind), group in itertools.groupby(sorted(outcomes, key=key), key=key):
        rows = list(group)
        table.add_row(
            victim,
            kind,
            str(len(rows)),
            str(sum(not row.wrong for row in rows)),
            _spread([row.named for row in rows]) if victim != "launcher" else "",
            _spread([row.ended for row in rows]),
        )
    console = Console(width=100)
    console.print(table)
    right = sum(not outcome.wrong for outcome in outcomes)
    left = sum(w.startswith("left") for o in outcomes for w in o.wrong)
    console.print(
        f"{right} of {len(outcomes)} faults named rightly, in time, with nothing left; "
        f"{left} things left behind, no hang; {seconds:.0f} s"
    )


def _row(outcome: Outcome) -> tuple[str, str]:
    victim = outcome.case.victim
    return "a rank" if isinstance(victim, int) else victim, outcome.case.kind


def _spread(values: list[float]) -> str:
    """The median and the most."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f}, at most {ordered[-1]:.2f}"


if __name__ == "__main__":
    main()
