"""The starting process of a local run: it reads the plan once, for all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parframe.executors.rank import ready, results_of
from parframe.generation.engine import Shape
from parframe.generation.requests import Token, facts_of, request_of
from parframe.generation.scheduler import Batch
from parframe.generation.settings import settings_of
from parframe.launcher import Worker, fork_server
from parframe.launcher.processes import bind_cpus
from parframe.plan import Plan
from parframe.plan.plan_reader import parse_plan


def generate(worker: Worker) -> None:
    """Serve batches of requests until there are no more."""
    plan: Plan = worker.shared
    settings = settings_of(worker.facts["settings"])
    shape = Shape(**worker.facts["shape"])
    if settings.bound and settings.device == "cpu":
        bind_cpus(worker.rank, worker.world)

    def progress(done: int, total: int) -> None:
        worker.step(done * 100 // max(total, 1))

    serving = ready(worker, plan, settings, shape, worker.facts["run"], progress)
    worker.phase("step")
    worker.send({"ready": worker.rank})

    def told(tokens: Sequence[Token]) -> None:
        worker.send({"tokens": [facts_of(token) for token in tokens]})

    while (message := worker.receive()) is not None and "batch" in message:
        batch = Batch(tuple(request_of(facts) for facts in message["batch"]))
        found = [facts_of(result) for result in results_of(serving, batch, told)]
        if serving.leads:
            worker.send({"results": found, "replica": serving.replica.number})


def prepare(facts: Mapping[str, Any], blob: Any) -> Plan:
    """Read the plan, and import what all ranks need, once."""
    import parframe.runtime.emit  # noqa: F401

    return parse_plan(bytes(blob).decode())


if __name__ == "__main__":
    fork_server.main({"generate": generate}, prepare)
