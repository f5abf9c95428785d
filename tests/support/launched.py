"""Tasks for tests of the launcher."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from faulty import faulty

import parframe.runtime.shared_memory_collectives  # noqa: F401  registers its operators
from parframe.launcher import Worker, fork_server
from parframe.launcher.processes import bind_cpus
from parframe.ops.group_registry import register_group
from parframe.runtime.process_groups import close_groups, make_groups
from parframe.runtime.shared_memory import SEGMENT_NAME


def steps(worker: Worker) -> None:
    """Create the groups, load, warm up, then run steps of one collective each."""
    worker.operator("rendezvous")
    make_groups(
        [], rank=worker.rank, world=worker.world, timeout=worker.timeout, store=worker.store
    )
    worker.phase("load")
    worker.operator("weights")
    weights = torch.ones(1000)
    worker.phase("warm-up")
    compute_total(worker, weights)
    worker.phase("step")
    for number in range(worker.facts.get("steps", 3)):
        worker.step(number)
        worker.send({"step": number, "total": compute_total(worker, weights)})


def compute_total(worker: Worker, weights: torch.Tensor) -> float:
    worker.operator("multiply")
    summed = weights * 1
    worker.operator("sum")
    dist.all_reduce(summed)
    return float(summed[0])


def gather(worker: Worker) -> None:
    """Gather the ranks of every group over the group."""
    wanted = [tuple(ranks) for ranks in worker.facts["groups"]]
    groups = make_groups(
        wanted, rank=worker.rank, world=worker.world, timeout=worker.timeout, store=worker.store
    )
    gathered = []
    for ranks in wanted:
        if worker.rank in ranks and len(ranks) > 1:
            own = torch.tensor([worker.rank])
            all_of = torch.ops._c10d_functional.all_gather_into_tensor(
                own, len(ranks), groups[ranks].group_name
            )
            gathered.append(torch.ops._c10d_functional.wait_tensor(all_of).tolist())
    worker.send({"gathered": gathered})
    close_groups()


def reduce(worker: Worker) -> None:
    """Reduce and gather tensors of several sizes, with different numbers on each rank."""
    if worker.facts.get("bound"):
        bind_cpus(worker.rank, worker.world)
    name = _create_world_group(worker)
    found = {}
    for length in worker.facts["lengths"]:
        own = numbers(worker.rank, length).to(getattr(torch, worker.facts["dtype"]))
        sites = (worker.world, worker.rank, name)
        for reduction in worker.facts["reductions"]:
            reduced = torch.ops.parframe.cpu_all_reduce(own, reduction, *sites)
            found[f"{reduction} {length}"] = reduced.tolist()
        found[f"gathered {length}"] = torch.ops.parframe.cpu_all_gather(own, *sites).tolist()
    shared = SEGMENT_NAME in Path("/proc/self/maps").read_text()
    worker.send({"found": found, "shared": shared, "dtype": str(reduced.dtype)})
    close_groups()


def numbers(rank: int, length: int) -> torch.Tensor:
    """Return small whole numbers, whose sums and products are exact in any order."""
    return ((torch.arange(length) * 7 + rank * 3) % 5 - 2).to(torch.float64)


def _create_world_group(worker: Worker) -> str:
    ranks = tuple(range(worker.world))
    groups = make_groups(
        [ranks], rank=worker.rank, world=worker.world, timeout=worker.timeout, store=worker.store
    )
    return register_group(groups[ranks])


def echo(worker: Worker) -> None:
    """Answer every message until an empty one."""
    worker.phase("step")
    while message := worker.receive():
        worker.send({"rank": worker.rank, **message, "blob": bytes(worker.blob[:5]).decode()})


def late(worker: Worker) -> None:
    """Wait for the launcher on all ranks but 1, which never reaches that place."""
    worker.phase("load")
    worker.operator("weights")
    if worker.rank == 1:
        time.sleep(600)
    worker.phase("step")
    worker.receive()


def compiles(worker: Worker) -> None:
    """Start a process and write a file as a compiler does, report them, and wait."""
    worker.phase("step")
    Path(tempfile.mkstemp(suffix=".s")[1]).write_text("nop")
    child = subprocess.Popen(["sleep", "600"])
    worker.send({"child": child.pid})
    worker.receive()


if __name__ == "__main__":
    fork_server.main(
        {
            "compiles": compiles,
            "echo": echo,
            "gather": gather,
            "late": late,
            "reduce": reduce,
            "steps": faulty(steps),
        }
    )
