"""Tasks for tests of launching."""

from __future__ import annotations

import subprocess

import torch
import torch.distributed as dist
from faulty import faulty

from parframe.launching import Worker, nursery
from parframe.ranks.groups import close_groups, make_groups


def steps(worker: Worker) -> None:
    """Meet, load, warm up, then steps of one collective each."""
    worker.operator("meet")
    make_groups(
        [], rank=worker.rank, world=worker.world, timeout=worker.timeout, store=worker.store
    )
    worker.phase("load")
    worker.operator("weights")
    weights = torch.ones(1000)
    worker.phase("warm-up")
    total(worker, weights)
    worker.phase("step")
    for number in range(worker.facts.get("steps", 3)):
        worker.step(number)
        worker.send({"step": number, "total": total(worker, weights)})


def total(worker: Worker, weights: torch.Tensor) -> float:
    worker.operator("multiply")
    summed = weights * 1
    worker.operator("sum")
    dist.all_reduce(summed)
    return float(summed[0])


def gather(worker: Worker) -> None:
    """Gather the ranks of every group, over the group."""
    wanted = [tuple(ranks) for ranks in worker.facts["groups"]]
    groups = make_groups(
        wanted, rank=worker.rank, world=worker.world, timeout=worker.timeout, store=worker.store
    )
    gathered = []
    for ranks in wanted + [tuple(ranks) for ranks in [worker.facts.get("also", [])] if ranks]:
        if worker.rank in ranks and len(ranks) > 1:
            own = torch.tensor([worker.rank])
            all_of = torch.ops._c10d_functional.all_gather_into_tensor(
                own, len(ranks), groups.name(ranks)
            )
            gathered.append(torch.ops._c10d_functional.wait_tensor(all_of).tolist())
    worker.send({"gathered": gathered})
    close_groups()


def echo(worker: Worker) -> None:
    """Answer every message until there is an empty one."""
    worker.phase("step")
    while message := worker.receive():
        worker.send({"rank": worker.rank, **message, "blob": bytes(worker.blob[:5]).decode()})


def compiles(worker: Worker) -> None:
    """Start a process as a compiler does, tell of it, and wait."""
    worker.phase("step")
    child = subprocess.Popen(["sleep", "600"])
    worker.send({"child": child.pid})
    worker.receive()


if __name__ == "__main__":
    nursery.main({"compiles": compiles, "echo": echo, "gather": gather, "steps": faulty(steps)})
