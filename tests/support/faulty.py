"""Faults that a worker causes in itself, at a place of any task, without a hook in the task."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from parframe import ParframeError
from parframe.launcher import Task, Worker
from parframe.ops.group_registry import is_registered

STEP = 1
"""Step in which a fault of the phase `step` is caused."""

PAUSE = 60.0
"""Seconds that a rank stays at a place, so that a test can cause a fault from outside."""


class FaultyWorker(Worker):
    """Worker that causes the fault named in its facts when it reaches the place."""

    place = ("", -1)
    caused = False

    def phase(self, name: str) -> None:
        super().phase(name)
        object.__setattr__(self, "place", (name, -1))

    def step(self, number: int) -> None:
        super().step(number)
        object.__setattr__(self, "place", (self.place[0], number))

    def operator(self, name: str) -> None:
        super().operator(name)
        fault = self.facts["fault"]
        phase, step = self.place
        here = phase == fault["phase"] and (step == STEP or phase != "step")
        if here and self.rank == fault["victim"] and not self.caused:
            object.__setattr__(self, "caused", True)
            self.send({"fault": time.monotonic(), "step": step, "operator": name})
            FAULTS[fault["kind"]]()


def faulty(task: Task) -> Task:
    """Return a task whose workers cause faults."""

    def run(worker: Worker) -> None:
        if "fault" in worker.facts:
            fields = {name: getattr(worker, name) for name in Worker.__slots__ if name[0] != "_"}
            fields.pop("__weakref__", None)
            worker = FaultyWorker(**fields, heartbeat=worker._heartbeat, channel=worker._channel)
            object.__setattr__(worker, "place", ("rendezvous", -1))
        task(worker)

    return run


def _exhaust_memory() -> None:
    """Allocate more memory than this process may have."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    torch.ones(1 << 28)


def _mismatch_shapes() -> None:
    """Pass a shape that differs from the peers' to the collective with the fewest ranks."""
    groups = [group for group in dist.distributed_c10d._world.pg_map if group.size() > 1]
    of_plan = [group for group in groups if is_registered(group)]
    group = min(of_plan or groups, key=lambda group: group.size())
    own = torch.ones(3)
    if of_plan:  # the peers are in an operator
        sites = (group.size(), group.rank(), group.group_name)
        torch.ops.parframe.cpu_all_reduce(own, "sum", *sites)
    else:
        dist.all_reduce(own, group=group)


def _raise() -> None:
    raise ParframeError("weights", "a.safetensors", "it is cut short", "copy it again")


FAULTS: dict[str, Callable[[], object]] = {
    "asleep": lambda: time.sleep(PAUSE),
    "exception": _raise,
    "exit": lambda: os._exit(0),
    "leave": lambda: sys.exit(0),
    "memory": _exhaust_memory,
    "outside": lambda: time.sleep(PAUSE),
    "segv": lambda: ctypes.string_at(0),
    "shape": _mismatch_shapes,
    "abort": lambda: os.kill(os.getpid(), signal.SIGABRT),
}
"""Kinds of faults; `outside` only pauses, so that a test can cause a fault from outside."""
