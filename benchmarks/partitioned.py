"""A plan of parframe as a contender: its own engine, its step compiled, a token at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import attrs

import parframe
from benchmarks.contender import SLOTS, Job, join, serve
from parframe.executors.rank import ready
from parframe.generation import Request, Sampling, Settings
from parframe.generation.engine import Engine, Shape
from parframe.generation.requests import Token
from parframe.generation.scheduler import Batch
from parframe.launcher.processes import bind_cpus


@attrs.frozen
class Station:
    """A process that belongs to a group already, and that nobody watches."""

    rank: int
    world: int
    store: Any = None
    timeout: float = 600.0

    def phase(self, name: str) -> None:
        """Nobody wants to know."""

    def step(self, number: int) -> None:
        """Nobody wants to know."""

    def operator(self, name: str) -> None:
        """Nobody wants to know."""


class Partitioned:
    """Decodes with the engine that `parframe.run` uses, one request in its one row."""

    def __init__(self, job: Job) -> None:
        bind_cpus(job.rank, job.processes)  # as the executor `local` does
        join(job)
        graph = parframe.load(job.folder, positions=True)
        plan = parframe.partition(graph, f"TP{job.processes}")
        settings = Settings(weights=job.folder, compiled=True)
        station = Station(job.rank, job.processes)
        self.engine = ready(station, plan, settings, Shape(1, 1, SLOTS), "benchmark").engine
        self.bytes = weights_read(self.engine)
        self.told: list[Token] = []
        self.steps: Generator[None, None, Any] | None = None

    def start(self, prompt: tuple[int, ...]) -> int:
        sampling = Sampling(max_new_tokens=SLOTS - len(prompt))
        self.steps = self.engine.stepwise(Batch((Request(0, prompt, sampling),)), self.tell)
        return self.next(-1)

    def next(self, token: int) -> int:
        """The token that the engine drew last; it draws the one after that in the same step."""
        self.told.clear()
        while not self.told and self.steps is not None:
            next(self.steps)
        return self.told[0].token

    def tell(self, tokens: Sequence[Token]) -> None:
        self.told.extend(tokens)


def weights_read(engine: Engine) -> int:
    """The bytes of all weights, those with two names once; the table of tokens is the head too."""
    found = {tensor.data_ptr(): tensor.nbytes for tensor in engine.module.parameters()}
    return sum(found.values())


if __name__ == "__main__":
    serve(Partitioned)
