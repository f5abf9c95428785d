"""Inject faults into runs, and check that errors name them, in time, with nothing left behind.

Most runs complete prompts with a plan of a tiny model on 2 or 4 ranks, as `parframe generate` does;
runs of more ranks have a task made for this benchmark. Every case starts a run, waits until one
process is at a place, and injects a fault there: a signal from outside, or an action of the process
itself. The run must end in time with an error that names rank, phase, step and operator. It must
leave nothing behind (processes, files, shared memory, ports), and report no result twice.
``--jobs`` cases run at once; ``--only`` selects cases by a part of their name. Cases run in random
order, so that those done within ``--minutes`` are a sample of all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import completions
from launches import MODULE, Traces, launch, list_listening_addresses, wait_until

from parframe.launcher import Launch, RunError
from parframe.launcher.processes import count_cpus

PHASES = ("rendezvous", "load", "warm-up", "step")
EARLY = ("start", "fork")  # before there is any rank, and while they are made
COLLECTIVE = ("warm-up", "step")  # phases in which ranks send to each other
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
HANG = 120.0
COMPILED = str(Path(tempfile.gettempdir()) / "parframe-faults-compiled")

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
CAUSES = {
    "kill": "crashed",
    "term": "crashed",
    "segv": "crashed",
    "exit": "crashed",
    "shape": "crashed",
    "stop": "frozen",
    "exception": "exception",
    "memory": "memory",
    "leave": "exception",
    "abort": "crashed",
    "asleep": "stalled",
}
"""The cause that each kind of fault must be given; see `_cause`."""

STALL = 8.0  # seconds without progress that are allowed where a rank falls asleep
BOUNDS = {"stop": 5.0, "asleep": STALL + 2.0}
"""Seconds within which a fault must be named; one for all others."""

ENDED = 5.0
"""Seconds within which all processes must be gone."""


@attrs.frozen
class Case:
    """Fault of one victim: a rank, `fork_server` or `launcher`."""

    world: int
    phase: str
    kind: str
    victim: int | str

    @property
    def real(self) -> bool:
        """True if the fault is injected in a run of a plan."""
        return self.world in completions.COMPOSITES

    @property
    def name(self) -> str:
        """Name of the case."""
        return f"{self.world} ranks, {self.phase}, {self.kind}, {self.victim}"


@attrs.frozen
class Outcome:
    """Outcome of a case: what was wrong, and the seconds until the fault was named and ended."""

    case: Case
    wrong: list[str]
    named: float = 0.0
    ended: float = 0.0


def cases() -> Iterator[Case]:
    """Yield all cases: ranks of plans, the processes around them, and larger worlds."""
    kinds = ("kill", "stop", "segv", "term", "exception", "exit", "memory", "shape")
    for world, phase, kind in itertools.product(completions.COMPOSITES, PHASES, kinds):
        for victim in sorted({0, world // 2, world - 1}):
            if kind != "shape" or phase == "step":  # in warm-up the peers compile first
                yield Case(world, phase, kind, victim)
    for world, phase in itertools.product(completions.COMPOSITES, EARLY + PHASES):
        for kind in ("kill", "stop", "term"):
            yield Case(world, phase, kind, "fork_server")
        for kind in ("kill", "term", "interrupt"):
            yield Case(world, phase, kind, "launcher")
    for world, phase in itertools.product(completions.COMPOSITES, PHASES):
        if phase != "warm-up":  # the others compile, for longer than they may be silent
            yield Case(world, phase, "asleep", 1)
        yield Case(world, phase, "abort", world // 2)
        yield Case(world, phase, "leave", world - 1)
        yield Case(world, phase, "abort", 0)
    for phase, kind in itertools.product(PHASES, kinds):
        if kind != "shape" or phase in COLLECTIVE:
            yield Case(8, phase, kind, 4)
    for kind in ("kill", "stop"):
        yield Case(64, "step", kind, 32)


def examine(case: Case) -> Outcome:
    """Run a case in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Traces.create(Path(folder))
        examined = _run_launcher_case if case.victim == "launcher" else _run_case
        return examined(case, traces)


def _facts(case: Case) -> dict[str, object]:
    own = case.kind not in SIGNALS
    victim = case.victim if isinstance(case.victim, int) else case.world // 2
    kind = case.kind if own else "outside"
    return {"fault": {"kind": kind, "phase": case.phase, "victim": victim}}


def _run_case(case: Case, traces: Traces) -> Outcome:
    """Run a case whose fault the launcher reports."""
    error, made, place = None, 0.0, {}
    wrong: list[str] = []
    done: list[int] = []

    def fault(message: Mapping[str, Any]) -> None:
        nonlocal made, place
        place = dict(message)
        made = place["fault"]
        if case.kind in SIGNALS:
            wrong.extend(_listeners(traces))
            made = _signal(run, case)

    with _launched(case, traces) as run:
        try:
            if case.phase in EARLY:
                made = _signal(run, case)
            for number in _completed_requests(run, case, fault):
                done.append(number)
        except RunError as raised:
            error = raised
        ended = time.monotonic() - made
        left = traces.list_leftovers()
    if error is None:
        return Outcome(case, ["the run ended well"])
    if not made:
        return Outcome(case, [f"failed before it was there: {error}"])
    if len(done) != len(set(done)):
        wrong.append(f"reported the results of {done}")
    wrong += [f"left {what}" for what in left] + _differences(case, error, place)
    named = error.failures[0].at - made
    if named > BOUNDS.get(case.kind, 1.0):
        wrong.append(f"named after {named:.1f} s")
    if ended - named > ENDED:
        wrong.append(f"ended {ended - named:.1f} s later")
    return Outcome(case, wrong, named, ended)


def _launched(case: Case, traces: Traces) -> AbstractContextManager[Launch]:
    timeout = STALL if case.kind == "asleep" else 60.0
    if case.real:
        settings = completions.settings_of(case.phase, timeout)
        return completions.create_launch(case.world, settings, _facts(case), _environment(traces))
    return launch(traces, "steps", case.world, facts=_facts(case), timeout=timeout)


def _environment(traces: Traces) -> dict[str, str]:
    """Return the environment of a run; compiled code is kept on purpose."""
    return {**traces.environment, "TORCHINDUCTOR_CACHE_DIR": COMPILED}


def _completed_requests(
    run: Launch, case: Case, fault: Callable[[Mapping[str, Any]], None]
) -> Iterator[int]:
    """Yield the requests that are completed, and pass messages of faults to a function."""
    if case.real:
        settings = completions.settings_of(case.phase)
        for result in completions.results(run, case.world, settings, fault):
            yield result.number
        return
    for event in run.events():
        if "fault" in event.message:
            fault(event.message)


def _listeners(traces: Traces) -> list[str]:
    return [
        f"listens at {a}"
        for a in list_listening_addresses(traces.list_processes())
        if a not in LOOPBACK
    ]


def _signal(run: Launch, case: Case) -> float:
    """Inject the fault from outside once the heartbeat of a rank shows the place."""
    if case.phase in EARLY:
        wait_until(lambda: case.phase == "start" or run.processes[0] is not None)
    else:
        rank = case.victim if isinstance(case.victim, int) else case.world // 2
        wait_until(lambda: run.progress()[rank].phase == case.phase)
    victim = (
        run.fork_server_pid if case.victim == "fork_server" else run.processes[int(case.victim)]
    )
    made = time.monotonic()
    os.kill(victim or 0, SIGNALS[case.kind])
    return made


def _cause(case: Case) -> str:
    """Return the expected cause of a fault.

    Gloo ends a process that is given a wrong shape; where ranks share memory, it is an exception.
    """
    shares = case.real and case.world <= count_cpus() and platform.machine() in ("x86_64", "AMD64")
    return "exception" if case.kind == "shape" and shares else CAUSES[case.kind]


def _differences(case: Case, error: RunError, place: dict[str, object]) -> list[str]:
    """Return the differences between the first failure and the fault."""
    first = error.failures[0]
    if case.real and (case.phase, case.kind) == ("rendezvous", "asleep"):
        absent = f" did not come within {0.9 * STALL:g} s: {case.victim}"
        return [] if absent in str(error) else [f"reported {error}"]
    if case.victim == "fork_server":
        wanted = {"rank": None, "cause": "frozen" if case.kind == "stop" else "fork_server"}
    else:
        step = None if place["step"] == -1 else place["step"]
        wanted = {
            "rank": case.victim,
            "cause": _cause(case),
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
import json, os, signal, sys, time
import completions

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it began in the background
world, facts, phase, environment = sys.argv[1:]
settings = completions.settings_of(phase)

def ready(message=None):
    print("ready", flush=True)

try:
    run = completions.create_launch(
        int(world), settings, json.loads(facts), json.loads(environment)
    )
    with run:
        while phase == "fork" and run.processes[0] is None:
            time.sleep(0.001)
        if phase in ("start", "fork"):
            ready()
        for result in completions.results(run, int(world), settings, ready):
            pass
except KeyboardInterrupt:
    os._exit(130)  # what Python tears down after a run is not part of it
"""


def _run_launcher_case(case: Case, traces: Traces) -> Outcome:
    """Run a case with a fault of the launcher: no process may remain."""
    environment = json.dumps(_environment(traces))
    arguments = [str(case.world), json.dumps(_facts(case)), case.phase, environment]
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
        wrong += [f"left {what}" for what in traces.list_leftovers(within=ENDED)]
        ended = time.monotonic() - made
    return Outcome(case, wrong, 0.0, ended)


def _run_with_timeout(case: Case, last: float) -> Outcome | None:
    """Run a case in a thread, so that a case that hangs does not block the others."""
    if time.monotonic() > last:
        return None
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
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    chosen = [case for case in cases() if given.only in case.name]
    random.Random(0).shuffle(chosen)
    for world in completions.COMPOSITES:
        completions.plan_of(world)  # once, and not in several threads
    began = time.monotonic()
    last = began + given.minutes * 60
    outcomes = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(lambda case: _run_with_timeout(case, last), chosen):
            if outcome is None:
                continue
            outcomes.append(outcome)
            if len(outcomes) % 20 == 0:
                print(f"{len(outcomes)} of {len(chosen)}", file=sys.stderr, flush=True)
            for what in outcome.wrong:
                print(f"{outcome.case.name}: {what}", file=sys.stderr)
    _print(outcomes, time.monotonic() - began)
    sys.exit(any(outcome.wrong for outcome in outcomes))


def _print(outcomes: list[Outcome], seconds: float) -> None:
    table = Table(
        "victim", "fault", "cases", "passed", "named after (s)", "ended after (s)", title="Faults"
    )
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
            _median_and_max([row.named for row in rows]) if victim != "launcher" else "",
            _median_and_max([row.ended for row in rows]),
        )
    console = Console(width=100)
    console.print(table)
    right = sum(not outcome.wrong for outcome in outcomes)
    left = sum(w.startswith("left") for o in outcomes for w in o.wrong)
    real = sum(outcome.case.real for outcome in outcomes)
    console.print(
        f"{real} of {len(outcomes)} cases in runs of plans; "
        f"{right} of {len(outcomes)} cases passed; "
        f"{left} leftovers, no hang; {seconds:.0f} s"
    )


def _row(outcome: Outcome) -> tuple[str, str]:
    victim = outcome.case.victim
    return "a rank" if isinstance(victim, int) else victim, outcome.case.kind


def _median_and_max(values: list[float]) -> str:
    """Return the median and the maximum."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f}, at most {ordered[-1]:.2f}"


if __name__ == "__main__":
    main()
