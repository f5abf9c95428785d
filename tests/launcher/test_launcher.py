import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import (
    MODULE,
    SIGNALS,
    Traces,
    launch,
    list_listening_addresses,
    wait_for_failure,
    wait_for_pause,
    wait_until,
)

from parframe import ParframeError
from parframe.launcher import Failure, Launch, RunError
from parframe.launcher.failures import add_output_reason, order_by_cause
from parframe.launcher.fork_server_process import LaunchConfig
from parframe.launcher.heartbeat import Progress
from parframe.launcher.stall_detector import StallDetector


@pytest.fixture
def traces(tmp_path: Path) -> Traces:
    return Traces.create(tmp_path)


def facts(kind: str, phase: str = "step", victim: int = 1) -> dict[str, object]:
    return {"fault": {"kind": kind, "phase": phase, "victim": victim}}


def test_workers_and_launcher_send_messages(traces: Traces) -> None:
    with launch(traces, "echo", 2, blob=b"bytes for all") as run:
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
    assert traces.list_leftovers() == []


@pytest.mark.slow
def test_sixty_four_workers_complete_a_collective_within_seconds(traces: Traces) -> None:
    began = time.monotonic()
    with launch(traces, "steps", 64, facts={"steps": 1}) as run:
        totals = [event.message["total"] for event in run.events()]
    assert totals == [64.0] * 64
    assert time.monotonic() - began < 40
    assert traces.list_leftovers() == []


@pytest.mark.parametrize(
    ("kind", "cause", "text"),
    [
        ("exception", "exception", "a.safetensors: it is cut short; copy it again"),
        ("exit", "crashed", "exited with code 0 before its task ended"),
        ("leave", "exception", "called exit with code 0 before it ended"),
        ("memory", "memory", "(expected: 3 GiB)"),
        ("segv", "crashed", "killed by SIGSEGV"),
        ("shape", "crashed", "pass different shapes: "),
    ],
)
def test_error_names_the_faulty_rank_first(
    traces: Traces, kind: str, cause: str, text: str
) -> None:
    estimates = ["1 GiB", "3 GiB", "2 GiB"]
    with launch(traces, "steps", 3, facts=facts(kind), estimates=estimates) as run:
        error = wait_for_failure(run)
        assert traces.list_leftovers() == []
    first, *others = error.failures
    assert (first.rank, first.cause, first.phase, first.step) == (1, cause, "step", 1)
    assert first.operator == "multiply"
    assert text in str(error).splitlines()[0]
    assert {other.cause for other in others} <= {"communication"}


@pytest.mark.parametrize(
    ("kind", "cause", "seconds", "text"),
    [
        ("kill", "crashed", 1, "killed by SIGKILL; something outside the run killed it"),
        ("term", "crashed", 1, "killed by SIGTERM"),
        ("stop", "frozen", 5, "frozen"),
    ],
)
def test_signalled_rank_is_named_in_time(
    traces: Traces, kind: str, cause: str, seconds: float, text: str
) -> None:
    with launch(traces, "steps", 3, facts=facts("outside", "load", 2)) as run:
        wait_for_pause(run, "load", [2])
        began = time.monotonic()
        os.kill(run.processes[2] or 0, SIGNALS[kind])
        error = wait_for_failure(run)
        assert time.monotonic() - began < seconds
        assert traces.list_leftovers() == []
    assert (error.failures[0].rank, error.failures[0].cause) == (2, cause)
    assert text in str(error)
    assert "rank 2, load at weights" in str(error)


def test_stalled_run_names_the_rank_that_stalled_first(traces: Traces) -> None:
    with launch(traces, "steps", 3, facts=facts("asleep"), timeouts={"step": 1.5}) as run:
        error = wait_for_failure(run)
    assert [failure.cause for failure in error.failures] == ["stalled"] * 3
    assert error.failures[0].rank == 1
    assert "stalled: no progress on any rank for 1.5 s" in str(error)
    assert traces.list_leftovers() == []


def test_processes_listen_on_loopback_only(traces: Traces) -> None:
    with launch(traces, "steps", 3, facts=facts("outside")) as run:
        wait_for_pause(run, "step", [1])
        found = list_listening_addresses(traces.list_processes())
        assert len(found) >= 4
        assert set(found) <= {"0100007F", "00000000000000000000000001000000"}


def test_rank_that_never_reaches_the_phase_of_the_waiting_ranks_is_named(traces: Traces) -> None:
    with launch(traces, "late", 3, timeouts={"load": 1.5}) as run:
        error = wait_for_failure(run)
    first = error.failures[0]
    assert (first.rank, first.cause, first.phase) == (1, "stalled", "load")
    assert first.operator == "weights"


@pytest.mark.parametrize("victim", ["a rank", "the fork server"])
def test_children_and_files_of_killed_processes_are_removed(traces: Traces, victim: str) -> None:
    with launch(traces, "compiles", 2) as run:
        events = run.events()
        children = [next(events).message["child"] for _ in range(2)]
        assert traces.list_leftovers()
        process = run.processes[1] if victim == "a rank" else run.fork_server_pid
        assert process is not None
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RunError):
            list(events)
    assert not [child for child in children if _is_running(child)]
    assert traces.list_leftovers() == []


def _is_running(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_interrupt_ends_all_processes(traces: Traces) -> None:
    # what a shell started in the background ignores ctrl-c
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(traces)
    finally:
        signal.signal(signal.SIGINT, before)
    assert traces.list_leftovers() == []


def _interrupted(traces: Traces) -> None:
    with launch(traces, "steps", 3, facts=facts("outside")) as run:
        wait_for_pause(run, "step", [1])
        signal.raise_signal(signal.SIGINT)
        run.wait()


def test_leaving_the_context_ends_all_processes(traces: Traces) -> None:
    with launch(traces, "steps", 3):
        wait_until(lambda: bool(traces.list_processes()))
    assert traces.list_leftovers() == []


@pytest.mark.parametrize("when", ["import", "step"])
def test_workers_exit_with_a_killed_launcher(traces: Traces, when: str) -> None:
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
    assert traces.list_leftovers(within=5) == []


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


@pytest.mark.parametrize(("kind", "cause"), [("kill", "fork_server"), ("stop", "frozen")])
def test_failed_fork_server_is_named(traces: Traces, kind: str, cause: str) -> None:
    with launch(traces, "steps", 3, facts=facts("outside")) as run:
        wait_for_pause(run, "step", [1])
        os.kill(run.fork_server_pid, SIGNALS[kind])
        error = wait_for_failure(run)
        assert traces.list_leftovers(within=1) == []
    assert (error.failures[0].rank, error.failures[0].cause) == (None, cause)
    assert "the fork server" in str(error)


def test_module_that_cannot_be_imported_is_reported(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("raise OSError('no such thing')")
    with Launch(str(module), "steps", 2) as run:
        error = wait_for_failure(run)
    assert "the fork server, start: exited with code 1" in str(error)


def test_thread_started_before_the_fork_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "threaded.py"
    module.write_text(_THREADED)
    with Launch(str(module), "nothing", 2) as run:
        error = wait_for_failure(run)
    assert "thread 'early': was started before the workers were forked" in str(error)


_THREADED = """
import threading, time
from parframe.launcher import fork_server

def prepare(facts, blob):
    threading.Thread(target=time.sleep, args=(60,), name="early", daemon=True).start()

fork_server.main({"nothing": lambda worker: None}, prepare=prepare)
"""


def test_unknown_task_is_reported() -> None:
    with Launch(MODULE, "step", 2) as run:
        error = wait_for_failure(run)
    assert "does not exist (did you mean 'steps'?)" in str(error)


def test_sending_to_a_failed_run_raises_its_failure(traces: Traces) -> None:
    with launch(traces, "steps", 2, facts=facts("exit", "load")) as run:
        wait_until(lambda: bool(run.failed))
        with pytest.raises(RunError, match="rank 1, load"):
            run.send(0, {"more": 1})


def test_workers_that_cannot_be_started_are_reported() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with pytest.raises(ParframeError, match="64 workers: cannot be started"):
            Launch(MODULE, "steps", 64).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_estimates_must_be_one_for_each_worker() -> None:
    with pytest.raises(ParframeError, match="pass one estimate for each worker"):
        Launch(MODULE, "steps", 2, estimates=["1 GiB"])


def test_busy_process_without_a_heartbeat_is_not_frozen() -> None:
    detector = StallDetector(_config())
    record = Progress(0, "step", 1, "", 0, 0, False, False)
    seen = [detector.find_frozen(now / 10, [record], [os.getpid()]) for now in range(100)]
    assert seen == [[]] * 100


def test_rank_that_waits_for_a_busy_peer_has_not_stalled() -> None:
    detector = StallDetector(_config())
    waits = Progress(0, "step", 1, "", 0, 0.0, False, False)
    works = Progress(1, "load", None, "", 0, 95.0, False, False)
    fork_server = Progress(2, "watch", None, "", 0, 0.0, False, False)
    assert list(detector.find_stalled(100.0, [waits, works], fork_server)) == []
    assert list(detector.find_stalled(106.0, [waits, works], fork_server)) == [(1, 10.0), (0, 10.0)]


def test_stalled_rank_with_the_fewest_operators_is_named_first() -> None:
    detector = StallDetector(_config())
    ahead = Progress(0, "step", 1, "layers.1", 0, 80.0, False, False, operators=5)
    asleep = Progress(1, "step", 1, "receive", 0, 85.0, False, False, operators=1)
    fork_server = Progress(2, "watch", None, "", 0, 0.0, False, False)
    assert list(detector.find_stalled(100.0, [ahead, asleep], fork_server)) == [
        (1, 10.0),
        (0, 10.0),
    ]


def test_causes_come_before_failures_that_follow_from_them() -> None:
    peer_lost = _failure(0, "communication", 1.0)
    aborted = _failure(1, "crashed", 3.0, code=-signal.SIGABRT)
    raised = _failure(2, "exception", 2.0)
    killed = _failure(3, "crashed", 4.0, code=-signal.SIGKILL)
    assert order_by_cause([peer_lost, aborted, raised, killed]) == [
        killed,
        raised,
        aborted,
        peer_lost,
    ]


@pytest.mark.parametrize(
    ("words", "cause", "text"),
    [
        (
            "cannot allocate memory for thread-local data: ABORT",
            "memory",
            "exited with code 127, out",
        ),
        ("terminate called\n  what():  std::bad_alloc\n", "memory", "what():  std::bad_alloc"),
        ("terminate called\n  what():  no luck\nmore", "crashed", "exited with code 127: no luck"),
        ("nothing of the kind", "crashed", "exited with code 127"),
    ],
)
def test_output_gives_the_reason_of_a_crash(words: str, cause: str, text: str) -> None:
    failure = add_output_reason(
        _failure(1, "crashed", 0, description="exited with code 127"), words
    )
    assert failure.cause == cause
    assert text in failure.description


def test_eight_other_failures_are_shown_and_the_rest_counted() -> None:
    error = RunError([_failure(rank, "communication", rank) for rank in range(64)])
    assert len(str(error).splitlines()) == 10
    assert str(error).splitlines()[-1] == "  and 55 more"


def _failure(
    rank: int, cause: str, at: float, code: int | None = None, description: str = "description"
) -> Failure:
    return Failure(rank, cause, description, "step", 1, "", at, "hint", code=code)


def _config() -> LaunchConfig:
    return LaunchConfig("", "", 2, {}, b"", 1, 10.0, {}, {})
