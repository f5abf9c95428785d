"""Alternating runs of several systems, whose processes live for all rounds."""

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
class System:
    """System to measure: the module of its processes, their number and their threads."""

    name: str
    module: str
    processes: int
    threads: int
    reads: bool = False
    """True if it only reads memory, without decoding."""


@attrs.frozen
class SystemTimes:
    """Times of a system: bytes read per token, setup time and the seconds of every round."""

    system: System
    bytes: int
    prepared: float
    rounds: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]

    def deciles(self) -> list[float]:
        """Return the 10th percentile of each round."""
        return [quantile(seconds, 0.1) for seconds in self.rounds]

    def medians(self) -> list[float]:
        """Return the median of each round."""
        return [quantile(seconds, 0.5) for seconds in self.rounds]


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@attrs.frozen
class RunningSystem:
    """Processes of one system."""

    system: System
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
            raise SystemExit(f"{self.system.name} exited early:\n{self.log.read_text()[-4000:]}")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()


@contextmanager
def start_system(system: System, folder: Path) -> Iterator[RunningSystem]:
    """Start the processes of a system, with a folder for the model and their files."""
    name = system.name.replace(" ", "_").replace(",", "")
    log = folder / f"{name}.log"
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(system.threads),
        # huge pages for all systems: they make reads up to 1.5 times as fast
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    processes = []
    with log.open("w") as errors:
        for rank in range(system.processes):
            config = {
                "folder": str(folder / "model"), "rank": rank, "processes": system.processes,
                "threads": system.threads, "store": str(folder / f"{name}.store"),
            }  # fmt: skip
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": system.processes}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", system.module, json.dumps(config)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**environment, **{key: str(value) for key, value in place.items()}},
                )
            )
    started = RunningSystem(system, tuple(processes), log)
    try:
        yield started
    finally:
        started.end()


TURNS = 5
"""Turns of a system in a round, since memory speed varies within seconds on shared machines."""


def run_alternately(
    systems: Sequence[tuple[RunningSystem, list[Answer]]], rounds: int, tokens: int
) -> list[SystemTimes]:
    """Run systems in turns, so that disturbances of the machine affect all alike."""
    found: list[list[list[Answer]]] = [[] for _ in systems]
    for _ in range(rounds):
        turns = [
            [system.ask(tokens // TURNS)[0] for system, _ready in systems] for _ in range(TURNS)
        ]
        for number, answers in enumerate(found):
            answers.append([turn[number] for turn in turns])
    return [
        SystemTimes(
            system=system.system,
            bytes=sum(answer["bytes"] for answer in ready),
            prepared=ready[0]["prepared"],
            rounds=tuple(
                tuple(second for answer in turns for second in answer["seconds"])
                for turns in answers
            ),
            tokens=tuple(answers[0][0]["tokens"]),
        )
        for (system, ready), answers in zip(systems, found, strict=True)
    ]
