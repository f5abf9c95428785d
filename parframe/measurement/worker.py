"""Task of one rank of a measurement: kernels with the other ranks and alone, and collectives."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import attrs
import torch
import torch.distributed as dist

from parframe.executors.devices import select_device
from parframe.launcher import Worker, fork_server
from parframe.launcher.processes import bind_cpus
from parframe.measurement.collective_timing import (
    CollectiveTimes,
    TimedGroup,
    time_collectives,
    time_sends,
)
from parframe.measurement.idle_wait import IdleWait
from parframe.measurement.kernel_timing import KernelSizes, KernelTimer, KernelTimes
from parframe.runtime.process_groups import make_groups
from parframe.simulation.dtypes import parse_dtype

TASK = "measure"

AT_ONCE, ALONE = "at once", "alone"
"""When a kernel was timed: while all ranks compute, or while the others wait."""


def measure(worker: Worker) -> None:
    """Measure kernels and collectives on one rank, and send the times to the launcher."""
    facts = worker.facts
    if facts["device"] == "cpu":
        bind_cpus(worker.rank, worker.world)
    torch.set_grad_enabled(False)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worker.send({"resident_bytes": resident})
    device = select_device(facts["device"], worker.rank)
    groups = _make_timed_groups(worker, device)
    worker.phase("measure")
    idle = IdleWait(facts["patience"])
    timers = {name: _compile_kernels(worker, name, device) for name in facts["dtypes"]}
    for name, timer in timers.items():
        worker.operator(f"kernels in {name}")
        _time_kernels(worker, name, timer, idle)
    for group in groups:
        worker.operator(f"collectives of {group.size} ranks")
        idle.wait()
        for times in _time_group(group, facts["collective_repeats"]):
            worker.send({"collective": attrs.asdict(times)})
    _barrier(worker)


def _compile_kernels(worker: Worker, name: str, device: torch.device) -> KernelTimer:
    worker.operator(f"compile in {name}")
    sizes = KernelSizes(**_restore_tuples(worker.facts["sizes"]))
    timer = KernelTimer(device, parse_dtype(name) or torch.float32, sizes)
    timer.warm_up()
    return timer


def _time_kernels(worker: Worker, name: str, timer: KernelTimer, idle: IdleWait) -> None:
    """Time kernels on all ranks at once, then on the first rank alone."""
    for times in _time_when_idle(worker, timer, idle, alone=False):
        worker.send({"kernel": attrs.asdict(times), "dtype": name, "when": AT_ONCE})
        _barrier(worker)
    if worker.world > 1 and worker.rank == 0:
        for times in _time_when_idle(worker, timer, idle, alone=True):
            worker.send({"kernel": attrs.asdict(times), "dtype": name, "when": ALONE})
    _barrier(worker)


def _time_when_idle(
    worker: Worker, timer: KernelTimer, idle: IdleWait, alone: bool
) -> Iterator[KernelTimes]:
    """Yield the times of each kernel, timed when other programs are idle."""
    for time_kernel in timer.timings():
        if not alone:
            _barrier(worker)
        if worker.rank == 0:
            idle.wait()
        if not alone:
            _barrier(worker)
        yield time_kernel()


def _make_timed_groups(worker: Worker, device: torch.device) -> list[TimedGroup]:
    """Create the groups of the first two, four, ... ranks and of all; return this rank's."""
    if worker.world == 1:
        return []
    powers = [2**power for power in range(1, worker.world.bit_length())]
    every = [tuple(range(count)) for count in dict.fromkeys((*powers, worker.world))]
    groups = make_groups(
        every, rank=worker.rank, world=worker.world, device=device.type, timeout=worker.timeout,
        store=worker.store,
    )  # fmt: skip
    own = [ranks for ranks in every if worker.rank in ranks]
    return [TimedGroup(ranks, groups[ranks], worker.rank, device) for ranks in own]


def _time_group(group: TimedGroup, repeats: int) -> Iterator[CollectiveTimes]:
    yield from time_collectives(group, repeats=repeats)
    if group.size == 2:
        yield from time_sends(group, repeats=repeats)


def _barrier(worker: Worker) -> None:
    if worker.world > 1:
        dist.barrier()


def _restore_tuples(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}


if __name__ == "__main__":
    fork_server.main({TASK: measure})
