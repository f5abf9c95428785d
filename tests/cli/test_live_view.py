"""Live view of a run on a terminal: every rank, without disturbing the text."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

from plan_assertions import STORIES, needs_stories
from rich.console import Console

from parframe.cli.completion_printers import TextPrinter
from parframe.cli.live_view import LiveView
from parframe.launcher import Progress
from parframe.report.ranks import RankTable


def at(rank, phase="step", step=7, operator="model.layers.1", ago=0.0, **more):
    fields = {"beat": 0.0, "waiting": False, "done": False, **more}
    return Progress(rank, phase, step, operator, progressed=time.monotonic() - ago, **fields)


def shown(ranks, height=20, width=60):
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(ranks, end="")
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_row_of_a_rank_has_its_phase_step_and_operator():
    seen = [
        at(0), at(1, step=None, phase="rendezvous", operator="wait for the other ranks"),
        at(2, phase="load", step=40, operator="weights"), at(3, waiting=True), at(4, done=True),
    ]  # fmt: skip
    rows = [line.split() for line in shown(RankTable(lambda: seen), width=80)]
    assert rows == [
        ["rank", "phase", "step", "steps/s", "operator"],
        ["0", "step", "7", "model.layers.1"],
        ["1", "rendezvous", "wait", "for", "the", "other", "ranks"],
        ["2", "load", "━━━━──────", "40", "%", "weights"],
        ["3", "step", "7", "waiting", "for", "a", "batch"],
        ["4", "done", "7"],
    ]


def test_rate_covers_the_last_seconds_of_one_phase():
    now, seen = [0.0], [at(0, step=0)]
    ranks = RankTable(lambda: seen, lambda: now[0])
    for second in range(9):
        now[0] = float(second)
        seen[:] = [at(0, step=second if second < 5 else 4 + 10 * (second - 4))]
        lines = shown(ranks)
    assert lines[1].split()[:4] == ["0", "step", "44", "10.0"]
    seen[:] = [at(0, phase="warm-up", step=1)]
    assert shown(ranks)[1].split() == ["0", "warm-up", "1", "model.layers.1"]


def test_stalled_rank_shows_the_seconds_without_progress():
    assert shown(RankTable(lambda: [at(0, ago=12.2)]))[1].endswith("model.layers.1 (12 s)")


def test_ranks_in_the_same_state_share_a_row_if_there_are_too_many():
    seen = [at(rank, step=9 if rank < 40 else 8) for rank in range(63)] + [
        at(63, step=3, operator="x")
    ]
    lines = shown(RankTable(lambda: seen), height=12)
    assert [line.split()[:3] for line in lines[1:]] == [
        ["63", "step", "3"],
        ["0-62", "step", "8-9"],
    ]
    many = [at(rank, operator=f"operator {rank}") for rank in range(30)]
    lines = shown(RankTable(lambda: many), height=12)
    assert (len(lines), lines[-1]) == (1 + 8 + 1, "and 22 more")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_text_on_the_same_terminal_hides_the_view(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with LiveView(lambda: "a line") as view:
        out = view.share(terminal)
        out.write("Once")
        assert terminal.getvalue().endswith("Once")
        cleared = terminal.getvalue()
        time.sleep(0.3)
        out.write(" upon")
        assert terminal.getvalue() == cleared + " upon"
    assert "a line" in terminal.getvalue().removeprefix(cleared)  # the line remains


def test_view_is_not_shown_without_a_terminal(monkeypatch):
    err, out = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with LiveView(lambda: "a line") as view:
        assert view.share(out) is out
    assert err.getvalue() == ""


def test_view_is_allowed_between_completions():
    class Ended:
        text, outcome = "", None

    first, second = Ended(), Ended()
    printer = TextPrinter([first, second], io.StringIO(), streaming=True)
    printer()
    assert printer.between_completions
    first.text = "Once"
    printer()
    assert not printer.between_completions
    first.outcome = "it ended"
    printer()
    assert printer.between_completions
    second.outcome = "it ended"
    printer()
    assert not printer.between_completions


@needs_stories
def test_run_shows_its_ranks_on_a_terminal_and_its_text_on_stdout():
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "parframe", "generate", str(STORIES), "--parallel", "TP2",
               "--prompt", "Once upon a time", "--max-new-tokens", "6"]  # fmt: skip
    written: list[bytes] = []

    def listen():
        while True:
            try:
                written.append(os.read(ours, 1 << 16))
            except OSError:  # the other end is closed
                return

    listening = threading.Thread(target=listen)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        listening.start()
        assert process.stdout.read().decode() == ", there was a little g\n"
    listening.join()
    os.close(ours)
    screen = re.sub(r"\x1b\[[\d;?]*\w", "", b"".join(written).decode())
    assert process.returncode == 0, screen
    assert "rank  phase" in screen
    assert "6 tokens in" in screen
    assert "1 of 1 prompt completed; 2 devices" in screen
