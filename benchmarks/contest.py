"""Contenders as long-lived processes that wait on a pipe, and rounds in which they take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

Answer = dict[str, Any]


@attrs.frozen
class Contender:
    """Something to measure: a module that serves, and how many processes and threads it gets."""

    name: str
    module: str
    processes: int
    threads: int
    reads: bool = False
    """It reads memory and decodes nothing."""


@attrs.frozen
class Measured:
    """A contender's answers: what it said when it was ready, and the seconds of every round."""

    contender: Contender
    bytes: int
    prepared: float
    rounds: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]

    def deciles(self) -> list[float]:
        """The 10th percentile of each round."""
        return [quantile(seconds, 0.1) for seconds in self.rounds]

    def medians(self) -> list[float]:
        return [quantile(seconds, 0.5) for seconds in self.rounds]


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@attrs.frozen
class Running:
    """The processes of one contender."""

    contender: Contender
    processes: tuple[subprocess.Popen[str], ...]
    log: Path

    def ask(self, tokens: int) -> list[Answer]:
        for process in self.processes:
            if process.stdin is not None:
                process.stdin.write(f"{tokens}\n")
                process.stdin.flush()
        return self.answers()

    def answers(self) -> list[Answer]:
        lines = [process.stdout.readline() if process.stdout else "" for process in self.processes]
        if not all(lines):
            raise SystemExit(f"{self.contender.name} ended early:\n{self.log.read_text()[-4000:]}")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()


@contextmanager
def running(contender: Contender, folder: Path) -> Iterator[Running]:
    """Start a contender's processes; a folder holds the model, and what they leave behind."""
    name = contender.name.replace(" ", "_").replace(",", "")
    log = folder / f"{name}.log"
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(contender.threads),
        # Memory in huge pages, for all alike: reading it is faster by up to a half.
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    processes = []
    with log.open("w") as errors:
        for rank in range(contender.processes):
            job = {
                "folder": str(folder / "model"), "rank": rank, "processes": contender.processes,
                "threads": contender.threads, "store": str(folder / f"{name}.store"),
            }  # fmt: skip
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": contender.processes}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", contender.module, json.dumps(job)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**environment, **{key: str(value) for key, value in place.items()}},
                )
            )
    started = Running(contender, tuple(processes), log)
    try:
        yield started
    finally:
        started.end()


TURNS = 5
"""Turns of a contender in a round: how fast memory is changes within seconds on shared machines."""


def alternate(
    contenders: Sequence[tuple[Running, list[Answer]]], rounds: int, tokens: int
) -> list[Measured]:
    """Let contenders take turns, so that what slows the machine slows them alike."""
    found: list[list[list[Answer]]] = [[] for _ in contenders]
    for _ in range(rounds):
        turns = [
            [contender.ask(tokens // TURNS)[0] for contender, _ready in contenders]
            for _ in range(TURNS)
        ]
        for number, answers in enumerate(found):
            answers.append([turn[number] for turn in turns])
    return [
        Measured(
            contender=contender.contender,
            bytes=sum(answer["bytes"] for answer in ready),
            prepared=ready[0]["prepared"],
            rounds=tuple(
                tuple(second for answer in turns for second in answer["seconds"])
                for turns in answers
            ),
            tokens=tuple(answers[0][0]["tokens"]),
        )
        for (contender, ready), answers in zip(contenders, found, strict=True)
    ]
