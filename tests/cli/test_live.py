"""What is shown on a terminal while a plan runs: every rank, and never in the way of the text."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

from proving import STORIES, needs_stories
from rich.console import Console

from parframe.cli.completions import Printer
from parframe.cli.live import View
from parframe.launcher import Progress
from parframe.report.ranks import Ranks


def at(rank, phase="step", step=7, operator="model.layers.1", ago=0.0, **more):
    told = {"beat": 0.0, "waiting": False, "done": False, **more}
    return Progress(rank, phase, step, operator, progressed=time.monotonic() - ago, **told)


def shown(ranks, height=20, width=60):
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(ranks, end="")
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_every_rank_has_its_phase_its_step_and_its_operator():
    seen = [
        at(0), at(1, step=None, phase="rendezvous", operator="wait for the other ranks"),
        at(2, phase="load", step=40, operator="weights"), at(3, waiting=True), at(4, done=True),
    ]  # fmt: skip
    rows = [line.split() for line in shown(Ranks(lambda: seen), width=80)]
    assert rows == [
        ["rank", "phase", "step", "a", "second", "at"],
        ["0", "step", "7", "model.layers.1"],
        ["1", "rendezvous", "wait", "for", "the", "other", "ranks"],
        ["2", "load", "━━━━──────", "40", "%", "weights"],
        ["3", "step", "7", "waits", "for", "a", "batch"],
        ["4", "done", "7"],
    ]


def test_a_rate_is_of_the_last_seconds_and_of_one_phase():
    now, seen = [0.0], [at(0, step=0)]
    ranks = Ranks(lambda: seen, lambda: now[0])
    for second in range(9):
        now[0] = float(second)
        seen[:] = [at(0, step=second if second < 5 else 4 + 10 * (second - 4))]
        lines = shown(ranks)
    assert lines[1].split()[:4] == ["0", "step", "44", "10.0"]
    seen[:] = [at(0, phase="warm-up", step=1)]
    assert shown(ranks)[1].split() == ["0", "warm-up", "1", "model.layers.1"]


def test_a_rank_that_stands_still_says_for_how_long():
    assert shown(Ranks(lambda: [at(0, ago=12.2)]))[1].endswith("model.layers.1 (12 s)")


def test_ranks_that_do_alike_are_a_row_where_there_is_no_room_for_all():
    seen = [at(rank, step=9 if rank < 40 else 8) for rank in range(63)] + [
        at(63, step=3, operator="x")
    ]
    lines = shown(Ranks(lambda: seen), height=12)
    assert [line.split()[:3] for line in lines[1:]] == [
        ["63", "step", "3"],
        ["0-62", "step", "8-9"],
    ]
    many = [at(rank, operator=f"operator {rank}") for rank in range(30)]
    lines = shown(Ranks(lambda: many), height=12)
    assert (len(lines), lines[-1]) == (1 + 8 + 1, "and 22 more")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_text_on_the_same_terminal_takes_the_view_away(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with View(lambda: "a line") as view:
        out = view.aside(terminal)
        out.write("Once")
        assert terminal.getvalue().endswith("Once")
        cleared = terminal.getvalue()
        time.sleep(0.3)
        out.write(" upon")
        assert terminal.getvalue() == cleared + " upon"
    assert "a line" in terminal.getvalue().removeprefix(cleared)  # the line is what stays


def test_where_there_is_no_terminal_there_is_no_view(monkeypatch):
    err, out = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with View(lambda: "a line") as view:
        assert view.aside(out) is out
    assert err.getvalue() == ""


def test_between_completions_there_is_room_for_the_view():
    class Made:
        text, outcome = "", None

    first, second = Made(), Made()
    printer = Printer([first, second], io.StringIO(), streaming=True)
    printer()
    assert printer.resting
    first.text = "Once"
    printer()
    assert not printer.resting
    first.outcome = "it ended"
    printer()
    assert printer.resting
    second.outcome = "it ended"
    printer()
    assert not printer.resting


@needs_stories
def test_a_run_shows_its_ranks_on_a_terminal_and_its_text_on_stdout():
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "parframe", "generate", str(STORIES), "--parallel", "TP2",
               "--prompt", "Once upon a time", "--max-new-tokens", "6"]  # fmt: skip
    told: list[bytes] = []

    def listen():
        while True:
            try:
                told.append(os.read(ours, 1 << 16))
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
    screen = re.sub(r"\x1b\[[\d;?]*\w", "", b"".join(told).decode())
    assert process.returncode == 0, screen
    assert "rank  phase" in screen
    assert "6 tokens in" in screen
    assert "1 of 1 prompt ended; 2 devices" in screen
