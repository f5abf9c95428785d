"""Survey of many model types, each in a separate process with limits of time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import attrs

from parframe.coverage.outcome import Outcome, Verdict

_PRELOADED = [
    "parframe.checking", "parframe.coverage.evaluation", "parframe.loading.huggingface.loader",
    "parframe.partitioning", "torch._dynamo", "torch.distributed.tensor",
    "transformers.generation", "transformers.models.auto.modeling_auto",
]  # fmt: skip
"""Modules that the fork server imports once for all processes."""


@attrs.frozen
class Limits:
    """Limits of the processes of a survey."""

    workers: int = attrs.field(factory=lambda: len(os.sched_getaffinity(0)))  # processes at once
    seconds: float = 300.0  # the time limit of one model type
    memory: int = 12 << 30  # the address space of one process, in bytes


def survey(
    model_types: Sequence[str],
    composites: Sequence[str],
    limits: Limits,
    report: Callable[[Outcome], None],
) -> None:
    """Evaluate model types in concurrent processes, and report outcomes in order of completion."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    waiting, running = list(reversed(model_types)), list[_Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < limits.workers:
                running.append(_start_worker(context, waiting.pop(), tuple(composites), limits))
            wait([worker.connection for worker in running], timeout=0.5)
            for worker in tuple(running):
                worker.receive()
                if worker.is_done(limits):
                    running.remove(worker)
                    report(worker.stop(limits))
    finally:
        for worker in running:
            worker.process.kill()


@attrs.define
class _Worker:
    """Process that evaluates a model type, with the outcome that it has sent so far."""

    process: Any
    connection: Connection
    composites: tuple[str, ...]
    outcome: Outcome
    started: float = attrs.field(factory=time.monotonic)
    closed: bool = False

    def receive(self) -> None:
        """Receive the outcomes that the process has sent."""
        try:
            while not self.closed and self.connection.poll():
                self.outcome = self.connection.recv()
        except EOFError:
            self.closed = True

    def is_done(self, limits: Limits) -> bool:
        """Return whether the process has ended or is over its time limit."""
        return self.closed or time.monotonic() - self.started > limits.seconds

    def stop(self, limits: Limits) -> Outcome:
        """Stop the process and return its outcome, with missing verdicts as unfinished."""
        timed_out = not self.closed
        self.process.kill()
        self.process.join()
        self.connection.close()
        if self.outcome.finished:
            return self.outcome
        code = self.process.exitcode
        reason = f"over {limits.seconds:g} s" if timed_out else f"its process ended with {code}"
        verdict = Verdict("unfinished", reason)
        if not self.outcome.loaded:
            return attrs.evolve(self.outcome, loading=verdict, finished=True)
        plans = self.outcome.plans
        rest = {c: verdict for c in self.composites if c not in plans and "EP" not in c}
        return attrs.evolve(self.outcome, plans={**plans, **rest}, finished=True)


def _start_worker(
    context: Any, model_type: str, composites: tuple[str, ...], limits: Limits
) -> _Worker:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(sender, model_type, composites, limits.memory), daemon=True
    )
    process.start()
    sender.close()
    return _Worker(process, receiver, composites, Outcome(model_type, Verdict("unfinished")))


def _run_worker(
    connection: Connection, model_type: str, composites: tuple[str, ...], memory: int
) -> None:
    """Evaluate a model type in this process, on one core, and send the outcomes."""
    import torch

    from parframe.coverage.evaluation import evaluate

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    with connection:
        for outcome in evaluate(model_type, composites):
            connection.send(outcome)
