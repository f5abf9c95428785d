"""A plan of parframe as a contender: its own engine, its step compiled, a token at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import attrs

import parframe
from benchmarks.contender import SLOTS, Job, join, serve
from parframe.executors.rank_setup import set_up_rank
from parframe.generation import Request, Sampling, Settings, Token
from parframe.generation.batch_shape import BatchShape
from parframe.generation.engine import Engine
from parframe.generation.scheduler import Batch
from parframe.launcher.processes import bind_cpus


@attrs.frozen
class Context:
    """Context of a rank whose process has a process group already, without a listener."""

    rank: int
    world: int
    store: Any = None
    timeout: float = 600.0

    def phase(self, name: str) -> None:
        """Ignore it."""

    def step(self, number: int) -> None:
        """Ignore it."""

    def operator(self, name: str) -> None:
        """Ignore it."""


class Partitioned:
    """Decodes with the engine that `parframe.run` uses, one request in its one row."""

    def __init__(self, job: Job) -> None:
        bind_cpus(job.rank, job.processes)  # as the executor `local` does
        join(job)
        graph = parframe.load(job.folder, positions=True)
        plan = parframe.partition(graph, f"TP{job.processes}")
        settings = Settings(weights=job.folder, compiled=True)
        context = Context(job.rank, job.processes)
        self.engine = set_up_rank(
            context, plan, settings, BatchShape(1, 1, SLOTS), "benchmark"
        ).engine
        self.bytes = weights_read(self.engine)
        self.drawn: list[Token] = []
        self.steps: Generator[None, None, Any] | None = None

    def start(self, prompt: tuple[int, ...]) -> int:
        sampling = Sampling(max_new_tokens=SLOTS - len(prompt))
        self.steps = self.engine.iterate_steps(
            Batch((Request(0, prompt, sampling),)), self.add_tokens
        )
        return self.next(-1)

    def next(self, token: int) -> int:
        """The token that the engine drew last; it draws the one after that in the same step."""
        self.drawn.clear()
        while not self.drawn and self.steps is not None:
            next(self.steps)
        return self.drawn[0].token

    def add_tokens(self, tokens: Sequence[Token]) -> None:
        self.drawn.extend(tokens)


def weights_read(engine: Engine) -> int:
    """The bytes of all weights, those with two names once; the table of tokens is the head too."""
    found = {tensor.data_ptr(): tensor.nbytes for tensor in engine.module.parameters()}
    return sum(found.values())


if __name__ == "__main__":
    serve(Partitioned)
