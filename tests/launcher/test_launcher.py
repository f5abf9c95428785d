import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import MODULE, SIGNALS, Traces, caught, failure_of, launched, listening, until

from parframe import ParframeError
from parframe.launcher import Failure, Launch, RunError
from parframe.launcher.failures import explained, in_order
from parframe.launcher.heartbeat import Progress
from parframe.launcher.stalls import Looking
from parframe.launcher.start import Order


@pytest.fixture
def traces(tmp_path: Path) -> Traces:
    return Traces.of(tmp_path)


def facts(kind: str, phase: str = "step", victim: int = 1) -> dict[str, object]:
    return {"fault": {"kind": kind, "phase": phase, "victim": victim}}


def test_workers_and_launcher_exchange_messages(traces: Traces) -> None:
    with launched(traces, "echo", 2, blob=b"bytes for all") as run:
        for rank in (0, 1):
            run.send(rank, {"number": 7 + rank})
        events = run.events()
        got = sorted((next(events) for _ in range(2)), key=lambda event: event.rank)
        for rank in (0, 1):
            run.send(rank, {})
        assert list(events) == []
    assert [event.message for event in got] == [
        {"rank": rank, "number": 7 + rank, "blob": "bytes"} for rank in (0, 1)
    ]
    assert traces.left() == []


@pytest.mark.slow
def test_sixty_four_workers_meet_within_seconds(traces: Traces) -> None:
    began = time.monotonic()
    with launched(traces, "steps", 64, facts={"steps": 1}) as run:
        totals = [event.message["total"] for event in run.events()]
    assert totals == [64.0] * 64
    assert time.monotonic() - began < 40
    assert traces.left() == []


@pytest.mark.parametrize(
    ("kind", "cause", "told"),
    [
        ("exception", "exception", "a.safetensors: it is cut short; copy it again"),
        ("exit", "died", "exited with code 0 before it was done"),
        ("leave", "exception", "left with exit code 0 before it was done"),
        ("memory", "memory", "(expected: 3 GiB)"),
        ("segv", "died", "killed by SIGSEGV"),
        ("shape", "died", "give it different shapes: "),
    ],
)
def test_a_fault_of_a_rank_is_named_first(traces: Traces, kind: str, cause: str, told: str) -> None:
    estimates = ["1 GiB", "3 GiB", "2 GiB"]
    with launched(traces, "steps", 3, facts=facts(kind), estimates=estimates) as run:
        error = failure_of(run)
        assert traces.left() == []
    first, *others = error.failures
    assert (first.rank, first.cause, first.phase, first.step) == (1, cause, "step", 1)
    assert first.operator == "multiply"
    assert told in str(error).splitlines()[0]
    assert {other.cause for other in others} <= {"communication"}


@pytest.mark.parametrize(
    ("kind", "cause", "seconds", "told"),
    [
        ("kill", "died", 1, "killed by SIGKILL; it was killed from outside"),
        ("term", "died", 1, "killed by SIGTERM"),
        ("stop", "frozen", 5, "frozen"),
    ],
)
def test_a_signalled_rank_is_named_in_time(
    traces: Traces, kind: str, cause: str, seconds: float, told: str
) -> None:
    with launched(traces, "steps", 3, facts=facts("outside", "load", 2)) as run:
        caught(run, "load", [2])
        began = time.monotonic()
        os.kill(run.processes[2] or 0, SIGNALS[kind])
        error = failure_of(run)
        assert time.monotonic() - began < seconds
        assert traces.left() == []
    assert (error.failures[0].rank, error.failures[0].cause) == (2, cause)
    assert told in str(error)
    assert "rank 2, load at weights" in str(error)


def test_a_run_that_stands_still_names_who_stood_still_first(traces: Traces) -> None:
    with launched(traces, "steps", 3, facts=facts("asleep"), timeouts={"step": 1.5}) as run:
        error = failure_of(run)
    assert [failure.cause for failure in error.failures] == ["stalled"] * 3
    assert error.failures[0].rank == 1
    assert "no progress for 1.5 s" in str(error)
    assert traces.left() == []


def test_nobody_listens_beyond_this_host(traces: Traces) -> None:
    with launched(traces, "steps", 3, facts=facts("outside")) as run:
        caught(run, "step", [1])
        found = listening(traces.living())
        assert len(found) >= 4
        assert set(found) <= {"0100007F", "00000000000000000000000001000000"}


def test_a_rank_that_never_comes_as_far_as_those_that_wait_is_named(traces: Traces) -> None:
    with launched(traces, "late", 3, timeouts={"load": 1.5}) as run:
        error = failure_of(run)
    first = error.failures[0]
    assert (first.rank, first.cause, first.phase) == (1, "stalled", "load")
    assert first.operator == "weights"


@pytest.mark.parametrize("victim", ["a rank", "the starting process"])
def test_what_killed_processes_had_started_and_written_is_gone_as_well(
    traces: Traces, victim: str
) -> None:
    with launched(traces, "compiles", 2) as run:
        events = run.events()
        children = [next(events).message["child"] for _ in range(2)]
        assert traces.left()
        process = run.processes[1] if victim == "a rank" else run.starter
        assert process is not None
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RunError):
            list(events)
    assert not [child for child in children if _lives(child)]
    assert traces.left() == []


def _lives(process: int) -> bool:
    """Whether a process is there and has not ended, even if nobody has asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_leaving_ends_all(traces: Traces) -> None:
    # what a shell started in the background ignores ctrl-c
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(traces)
    finally:
        signal.signal(signal.SIGINT, before)
    assert traces.left() == []


def _interrupted(traces: Traces) -> None:
    with launched(traces, "steps", 3, facts=facts("outside")) as run:
        caught(run, "step", [1])
        signal.raise_signal(signal.SIGINT)
        run.wait()


def test_leaving_early_ends_all(traces: Traces) -> None:
    with launched(traces, "steps", 3):
        until(lambda: bool(traces.living()))
    assert traces.left() == []


@pytest.mark.parametrize("when", ["import", "step"])
def test_workers_die_with_a_killed_launcher(traces: Traces, when: str) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, MODULE, when],
        env=os.environ | traces.environment | {"PYTHONPATH": str(Path(MODULE).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert launcher.stdout is not None
    with launcher, launcher.stdout:
        assert launcher.stdout.readline() == b"ready\n"
        launcher.kill()
    assert traces.left(within=5) == []


_LAUNCHER = """
import sys, time
from parframe.launcher import Launch

module, when = sys.argv[1:]
facts = {"fault": {"kind": "outside", "phase": when, "victim": 0}}
with Launch(module, "steps", 3, facts) as run:
    while when == "step" and run.progress()[0].step != 1 and not run.failed:
        time.sleep(0.01)
    print("ready", flush=True)
    run.wait()
"""


@pytest.mark.parametrize(("kind", "cause"), [("kill", "lost"), ("stop", "frozen")])
def test_the_starting_process_is_named(traces: Traces, kind: str, cause: str) -> None:
    with launched(traces, "steps", 3, facts=facts("outside")) as run:
        caught(run, "step", [1])
        os.kill(run.starter, SIGNALS[kind])
        error = failure_of(run)
        assert traces.left(within=1) == []
    assert (error.failures[0].rank, error.failures[0].cause) == (None, cause)
    assert "the starting process" in str(error)


def test_a_module_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("raise OSError('no such thing')")
    with Launch(str(module), "steps", 2) as run:
        error = failure_of(run)
    assert "the starting process, start: exited with code 1" in str(error)


def test_a_thread_before_the_workers_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "threaded.py"
    module.write_text(_THREADED)
    with Launch(str(module), "nothing", 2) as run:
        error = failure_of(run)
    assert "thread 'early': it was started before the workers were made" in str(error)


_THREADED = """
import threading, time
from parframe.launcher import fork_server

def prepare(facts, blob):
    threading.Thread(target=time.sleep, args=(60,), name="early", daemon=True).start()

fork_server.main({"nothing": lambda worker: None}, prepare=prepare)
"""


def test_a_task_that_is_not_there_is_told() -> None:
    with Launch(MODULE, "step", 2) as run:
        error = failure_of(run)
    assert "there is no such task (did you mean 'steps'?)" in str(error)


def test_a_message_to_a_run_that_failed_raises_its_failure(traces: Traces) -> None:
    with launched(traces, "steps", 2, facts=facts("exit", "load")) as run:
        until(lambda: bool(run.failed))
        with pytest.raises(RunError, match="rank 1, load"):
            run.send(0, {"more": 1})


def test_workers_that_cannot_be_started_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with pytest.raises(ParframeError, match="64 workers: they cannot be started"):
            Launch(MODULE, "steps", 64).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_estimates_are_one_for_each_worker() -> None:
    with pytest.raises(ParframeError, match="give one for each"):
        Launch(MODULE, "steps", 2, estimates=["1 GiB"])


def test_a_busy_process_without_a_heartbeat_is_not_frozen() -> None:
    looking = Looking(_order())
    record = Progress(0, "step", 1, "", 0, 0, False, False)
    seen = [looking.frozen(now / 10, [record], [os.getpid()]) for now in range(100)]
    assert seen == [[]] * 100


def test_a_rank_that_waits_for_a_busy_peer_has_not_stalled() -> None:
    looking = Looking(_order())
    waits = Progress(0, "step", 1, "", 0, 0.0, False, False)
    works = Progress(1, "load", None, "", 0, 95.0, False, False)
    starter = Progress(2, "watch", None, "", 0, 0.0, False, False)
    assert list(looking.stalled(100.0, [waits, works], starter)) == []
    assert list(looking.stalled(106.0, [waits, works], starter)) == [(1, 10.0), (0, 10.0)]


def test_of_ranks_that_stand_still_the_one_with_the_fewest_operators_is_blamed() -> None:
    looking = Looking(_order())
    ahead = Progress(0, "step", 1, "layers.1", 0, 80.0, False, False, operators=5)
    asleep = Progress(1, "step", 1, "receive", 0, 85.0, False, False, operators=1)
    starter = Progress(2, "watch", None, "", 0, 0.0, False, False)
    assert list(looking.stalled(100.0, [ahead, asleep], starter)) == [(1, 10.0), (0, 10.0)]


def test_a_cause_comes_before_what_follows_from_it() -> None:
    lost = _failure(0, "communication", 1.0)
    aborted = _failure(1, "died", 3.0, code=-signal.SIGABRT)
    raised = _failure(2, "exception", 2.0)
    killed = _failure(3, "died", 4.0, code=-signal.SIGKILL)
    assert in_order([lost, aborted, raised, killed]) == [killed, raised, aborted, lost]


@pytest.mark.parametrize(
    ("words", "cause", "told"),
    [
        (
            "cannot allocate memory for thread-local data: ABORT",
            "memory",
            "exited with code 127, out",
        ),
        ("terminate called\n  what():  std::bad_alloc\n", "memory", "what():  std::bad_alloc"),
        ("terminate called\n  what():  no luck\nmore", "died", "exited with code 127: no luck"),
        ("nothing of the kind", "died", "exited with code 127"),
    ],
)
def test_last_words_tell_why_a_process_died(words: str, cause: str, told: str) -> None:
    failure = explained(_failure(1, "died", 0, how="exited with code 127"), words)
    assert failure.cause == cause
    assert told in failure.how


def test_eight_others_are_shown_and_the_rest_counted() -> None:
    error = RunError([_failure(rank, "communication", rank) for rank in range(64)])
    assert len(str(error).splitlines()) == 10
    assert str(error).splitlines()[-1] == "  and 55 more"


def _failure(
    rank: int, cause: str, at: float, code: int | None = None, how: str = "how"
) -> Failure:
    return Failure(rank, cause, how, "step", 1, "", at, "hint", code=code)


def _order() -> Order:
    return Order("", "", 2, {}, b"", 1, 10.0, {}, {})
