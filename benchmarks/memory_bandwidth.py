"""Measure memory bandwidth like a decoding system: a token is one pass over a large buffer.

Processes that read at the same time wait for each other after every pass, so that a pass takes as
long as its slowest process.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as distributed
from torch import Tensor

from benchmarks.decode_worker import WorkerConfig, join, serve

ROWS, COLUMNS = 2**18, 1024
"""1 GiB of float32, far more than any cache holds."""


def dots(buffer: Tensor, row: Tensor) -> Tensor:
    return (row * buffer).sum(-1)


class MemoryReader:
    """Passes over a buffer with the fastest of several kernels."""

    def __init__(self, config: WorkerConfig) -> None:
        if config.processes > 1:
            join(config)
        self.processes = config.processes
        rows = ROWS // config.processes
        self.buffer = torch.rand(rows, COLUMNS)
        self.bytes = self.buffer.nbytes
        row = torch.rand(1, COLUMNS)
        compiled = torch.compile(dots, fullgraph=True, dynamic=False)
        whole = torch.compile(torch.sum, fullgraph=True, dynamic=False)
        self.kernels: tuple[Callable[[], object], ...] = (
            self.buffer.sum,
            lambda: self.buffer.sum(-1),
            self.buffer.amax,
            lambda: torch.mv(self.buffer, row[0]),
            lambda: whole(self.buffer),
            lambda: compiled(self.buffer, row),
        )
        self.fastest = self.kernels[0]

    def start(self, prompt: tuple[int, ...]) -> int:
        times = [self.best_of_five(kernel) for kernel in self.kernels]
        chosen = times.index(min(times))
        if self.processes > 1:
            choice = torch.tensor([chosen])
            distributed.broadcast(choice, 0)
            chosen = int(choice)
        self.fastest = self.kernels[chosen]
        return chosen

    def next(self, token: int) -> int:
        self.read(self.fastest)
        return token

    def read(self, kernel: Callable[[], object]) -> None:
        kernel()
        if self.processes > 1:
            distributed.barrier()

    def best_of_five(self, kernel: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            self.read(kernel)
            times.append(time.perf_counter() - start)
        return min(times)


if __name__ == "__main__":
    serve(MemoryReader)
