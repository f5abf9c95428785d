"""Many types of models, each examined in a process of its own with limits of time and memory."""

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

_HEAVY = [
    "parframe.checking", "parframe.coverage.examine", "parframe.loading.huggingface.loader",
    "parframe.partitioning", "torch._dynamo", "torch.distributed.tensor",
    "transformers.generation", "transformers.models.auto.modeling_auto",
]  # fmt: skip
"""What every process needs and one imports for all."""
_GIB = 1 << 30


@attrs.frozen
class Limits:
    """What the processes may use.

    Parameters
    ----------
    workers
        How many run at a time.
    seconds
        How long one type may take.
    memory
        The bytes of address space of one process.
    """

    workers: int = attrs.field(factory=lambda: len(os.sched_getaffinity(0)))
    seconds: float = 300.0
    memory: int = 12 * _GIB


def survey(
    model_types: Sequence[str],
    composites: Sequence[str],
    limits: Limits,
    told: Callable[[Outcome], None],
) -> None:
    """Examine types of models side by side.

    Parameters
    ----------
    model_types, composites
        What to examine.
    limits
        What that may use.
    told
        Is given every type's outcome, in the order in which they are done.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    left, running = list(reversed(model_types)), list[_Running]()
    try:
        while left or running:
            while left and len(running) < limits.workers:
                running.append(_started(context, left.pop(), tuple(composites), limits))
            wait([each.connection for each in running], timeout=0.5)
            for each in tuple(running):
                each.listen()
                if each.over(limits):
                    running.remove(each)
                    told(each.ended(limits))
    finally:
        for each in running:
            each.process.kill()


@attrs.define
class _Running:
    """A process that examines a type, and what it has told so far."""

    process: Any
    connection: Connection
    composites: tuple[str, ...]
    outcome: Outcome
    begun: float = attrs.field(factory=time.monotonic)
    closed: bool = False

    def listen(self) -> None:
        """Take what the process has said."""
        try:
            while not self.closed and self.connection.poll():
                self.outcome = self.connection.recv()
        except EOFError:
            self.closed = True

    def over(self, limits: Limits) -> bool:
        """Whether there is nothing more to wait for."""
        return self.closed or time.monotonic() - self.begun > limits.seconds

    def ended(self, limits: Limits) -> Outcome:
        """The outcome; what the process had in hand when it was stopped is unfinished."""
        stopped = not self.closed
        self.process.kill()
        self.process.join()
        self.connection.close()
        if self.outcome.finished:
            return self.outcome
        code = self.process.exitcode
        reason = f"over {limits.seconds:g} s" if stopped else f"its process ended with {code}"
        return _unfinished(self.outcome, self.composites, Verdict("unfinished", reason))


def _unfinished(outcome: Outcome, composites: Sequence[str], verdict: Verdict) -> Outcome:
    if not outcome.loaded:
        return attrs.evolve(outcome, loading=verdict, finished=True)
    rest = {c: verdict for c in composites if c not in outcome.plans and "EP" not in c}
    return attrs.evolve(outcome, plans={**outcome.plans, **rest}, finished=True)


def _started(
    context: Any, model_type: str, composites: tuple[str, ...], limits: Limits
) -> _Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_examine, args=(theirs, model_type, composites, limits.memory), daemon=True
    )
    process.start()
    theirs.close()
    return _Running(process, ours, composites, Outcome(model_type, Verdict("unfinished")))


def _examine(
    connection: Connection, model_type: str, composites: tuple[str, ...], memory: int
) -> None:
    """What each process does; as many run as there are cores, so each keeps to one."""
    import torch

    from parframe.coverage.examine import examine

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    with connection:
        for outcome in examine(model_type, composites):
            connection.send(outcome)
