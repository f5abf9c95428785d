"""Tasks for tests of launching, with the faults that a process can make of itself."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from parframe import ParframeError
from parframe.launching import Worker, nursery
from parframe.ranks.groups import close_groups, make_groups


def steps(worker: Worker) -> None:
    """Meet, load, warm up, then steps of one collective each; somewhere a fault, if asked for."""
    wait(worker, "rendezvous")
    dist.init_process_group(
        "gloo",
        store=worker.store,
        rank=worker.rank,
        world_size=worker.world,
        timeout=timedelta(seconds=worker.timeout),
    )
    worker.phase("load")
    weights = torch.ones(1000)
    wait(worker, "load")
    worker.phase("warm-up")
    wait(worker, "warm-up")
    exchange(worker, weights, "warm-up")
    worker.phase("step")
    for number in range(worker.facts.get("steps", 3)):
        worker.step(number)
        if number == 1:
            wait(worker, "step")
        total = exchange(worker, weights, "step" if number == 1 else "")
        worker.send({"step": number, "total": total})


def exchange(worker: Worker, weights: torch.Tensor, phase: str) -> float:
    worker.operator("sum of ones")
    mine = weights
    if fault_here(worker, phase) == "shape":
        mine = torch.ones(777)
    mine = mine.clone()
    dist.all_reduce(mine)
    return float(mine[0])


def wait(worker: Worker, phase: str) -> None:
    """Be long enough in a phase to be caught there, or make the fault that was asked for."""
    if worker.facts.get("phase") != phase:
        return
    worker.operator(f"waiting in {phase}")
    kind = fault_here(worker, phase)
    if kind in FAULTS:
        FAULTS[kind](worker)
    elif kind != "shape" and "kind" in worker.facts:
        hold(worker)


def fault_here(worker: Worker, phase: str) -> str:
    facts = worker.facts
    if facts.get("phase") != phase or facts.get("victim") != worker.rank:
        return ""
    return str(facts["kind"])


def hold(worker: Worker) -> None:
    """Wait at this place, for the victim and its peers alike, until somebody makes the fault."""
    if worker.facts["kind"] == "outside" or worker.facts.get("victim") == worker.rank:
        time.sleep(60)


def out_of_memory(_: Worker) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    torch.ones(1 << 28)


def raises(_: Worker) -> None:
    raise ParframeError("weights", "a.safetensors", "it is cut short", "copy it again")


FAULTS = {
    "exception": raises,
    "exit": lambda _: os._exit(0),
    "leave": lambda _: sys.exit(0),
    "memory": out_of_memory,
    "segv": lambda _: ctypes.string_at(0),
    "asleep": lambda _: time.sleep(60),
    "abort": lambda _: os.kill(os.getpid(), signal.SIGABRT),
}


def echo(worker: Worker) -> None:
    """Answer every message until there is an empty one."""
    worker.phase("step")
    while message := worker.receive():
        worker.send({"rank": worker.rank, **message, "blob": bytes(worker.blob[:5]).decode()})


def gather(worker: Worker) -> None:
    """Gather the ranks of every group, over the group."""
    wanted = [tuple(ranks) for ranks in worker.facts["groups"]]
    groups = make_groups(
        wanted,
        rank=worker.rank,
        world=worker.world,
        timeout=worker.timeout,
        store=worker.store,
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


if __name__ == "__main__":
    nursery.main({"echo": echo, "gather": gather, "steps": steps})
