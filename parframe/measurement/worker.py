"""What every rank does to be measured: compute beside the others, alone, and exchange with them."""

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
from parframe.measurement.collective_timing import Exchange, Ring, exchanges, sends
from parframe.measurement.idle_wait import Calm
from parframe.measurement.kernel_timing import Kernels, Point, Sizes
from parframe.runtime.process_groups import make_groups
from parframe.simulation.dtypes import parse_dtype

TASK = "measure"

AT_ONCE, ALONE = "at once", "alone"
"""When a point was measured: while all ranks compute, or while the others wait."""


def measure(worker: Worker) -> None:
    """Measure a rank, and tell the points as they come."""
    facts = worker.facts
    if facts["device"] == "cpu":
        bind_cpus(worker.rank, worker.world)
    torch.set_grad_enabled(False)
    worker.send({"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    device = select_device(facts["device"], worker.rank)
    rings = _rings(worker, device)
    worker.phase("measure")
    calm = Calm(facts["patience"])
    every = [(name, _kernels(worker, name, device)) for name in facts["dtypes"]]
    for name, kernels in every:
        worker.operator(f"kernels in {name}")
        _points(worker, name, kernels, calm)
    for ring in rings:
        worker.operator(f"exchanges of {ring.size} ranks")
        calm()
        for found in _exchanges(ring, facts["exchange_times"]):
            worker.send({"exchange": attrs.asdict(found)})
    _meet(worker)


def _kernels(worker: Worker, name: str, device: torch.device) -> Kernels:
    worker.operator(f"compile in {name}")
    sizes = Sizes(**_tuples(worker.facts["sizes"]))
    kernels = Kernels(device, parse_dtype(name) or torch.float32, sizes)
    kernels.warm_up()
    return kernels


def _points(worker: Worker, name: str, kernels: Kernels, calm: Calm) -> None:
    """Measure kernels at once with the others, then on the first rank alone."""
    for point in _calmly(worker, kernels, calm, alone=False):
        worker.send({"point": attrs.asdict(point), "dtype": name, "when": AT_ONCE})
        _meet(worker)
    if worker.world > 1 and worker.rank == 0:
        for point in _calmly(worker, kernels, calm, alone=True):
            worker.send({"point": attrs.asdict(point), "dtype": name, "when": ALONE})
    _meet(worker)


def _calmly(worker: Worker, kernels: Kernels, calm: Calm, alone: bool) -> Iterator[Point]:
    """Measure points, each in a calm moment, with the others unless they wait."""
    for measure in kernels.points():
        if not alone:
            _meet(worker)
        if worker.rank == 0:
            calm()
        if not alone:
            _meet(worker)
        yield measure()


def _rings(worker: Worker, device: torch.device) -> list[Ring]:
    """The first two, four, ... ranks, and all; this rank's among them."""
    if worker.world == 1:
        return []
    powers = [2**power for power in range(1, worker.world.bit_length())]
    wanted = [tuple(range(count)) for count in dict.fromkeys((*powers, worker.world))]
    groups = make_groups(
        wanted, rank=worker.rank, world=worker.world, device=device.type, timeout=worker.timeout,
        store=worker.store,
    )  # fmt: skip
    own = [ranks for ranks in wanted if worker.rank in ranks]
    return [Ring(ranks, groups.by_ranks[ranks], worker.rank, device) for ranks in own]


def _exchanges(ring: Ring, times: int) -> Iterator[Exchange]:
    yield from exchanges(ring, times=times)
    if ring.size == 2:
        yield from sends(ring, times=times)


def _meet(worker: Worker) -> None:
    if worker.world > 1:
        dist.barrier()


def _tuples(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(own) if isinstance(own, list) else own for name, own in facts.items()}


if __name__ == "__main__":
    fork_server.main({TASK: measure})
