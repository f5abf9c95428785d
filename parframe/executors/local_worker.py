"""Worker of a local run; its fork server reads the plan once for all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parframe.executors.rank_setup import set_up_rank
from parframe.generation.batch_shape import BatchShape
from parframe.generation.outcomes import Token
from parframe.generation.request_json import parse_request, to_json
from parframe.generation.scheduler import Batch
from parframe.generation.settings import settings_from_json
from parframe.launcher import Worker, fork_server
from parframe.launcher.processes import bind_cpus
from parframe.plan import Plan
from parframe.plan.plan_reader import parse_plan


def generate(worker: Worker) -> None:
    """Complete batches of requests until the launcher sends no more."""
    plan: Plan = worker.shared
    settings = settings_from_json(worker.facts["settings"])
    shape = BatchShape(**worker.facts["shape"])
    if settings.bind_cpus and settings.device == "cpu":
        bind_cpus(worker.rank, worker.world)

    def report_progress(done: int, total: int) -> None:
        worker.step(done * 100 // max(total, 1))

    rank = set_up_rank(worker, plan, settings, shape, worker.facts["run"], report_progress)
    worker.phase("step")
    worker.send({"ready": worker.rank})

    def send_tokens(tokens: Sequence[Token]) -> None:
        worker.send({"tokens": [to_json(token) for token in tokens]})

    while (message := worker.receive()) is not None and "batch" in message:
        batch = Batch(tuple(parse_request(request) for request in message["batch"]))
        results = [to_json(result) for result in rank.complete(batch, send_tokens)]
        if rank.leads:
            worker.send({"results": results, "replica": rank.replica.number})


def prepare(facts: Mapping[str, Any], blob: Any) -> Plan:
    """Read the plan and import the runtime, once for all ranks."""
    import parframe.runtime.emit  # noqa: F401

    return parse_plan(bytes(blob).decode())


if __name__ == "__main__":
    fork_server.main({"generate": generate}, prepare)
