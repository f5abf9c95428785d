"""Decoder with the engine of `parframe.run`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import attrs

import parframe
from benchmarks.decode_worker import SLOTS, WorkerConfig, join, serve
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


class ParframeDecoder:
    """Decoder with one request in the one row of the engine."""

    def __init__(self, config: WorkerConfig) -> None:
        bind_cpus(config.rank, config.processes)  # as the executor `local` does
        join(config)
        graph = parframe.load(config.folder, positions=True)
        plan = parframe.partition(graph, f"TP{config.processes}")
        settings = Settings(weights=config.folder, compiled=True)
        context = Context(config.rank, config.processes)
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
        """Return the token of the last step; the engine computes the next one in the same step."""
        self.drawn.clear()
        while not self.drawn and self.steps is not None:
            next(self.steps)
        return self.drawn[0].token

    def add_tokens(self, tokens: Sequence[Token]) -> None:
        self.drawn.extend(tokens)


def weights_read(engine: Engine) -> int:
    """Return the bytes of all distinct weights."""
    found = {tensor.data_ptr(): tensor.nbytes for tensor in engine.module.parameters()}
    return sum(found.values())


if __name__ == "__main__":
    serve(ParframeDecoder)
