"""Compare the peak memory of ranks of a run with the memory count of their plan.

The peak is that of the process (VmHWM) without its memory before the run: the interpreter and its
imports. As the module of the fork server, it is `parframe.executors.local_worker` and also writes
the measured memory to files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from parframe.executors.local_worker import generate, prepare
from parframe.launcher import Worker, fork_server

COMPOSITES = ("TP1", "TP2", "PP2")
PROMPT, NEW = 384, 16


def measured(worker: Worker) -> None:
    """Complete requests, and write the memory before and at the peak to a file."""
    before = status("VmRSS")
    generate(worker)
    figures = {"before": before, "most": status("VmHWM")}
    (Path(worker.facts["figures"]) / f"{worker.rank}.json").write_text(json.dumps(figures))


def status(name: str) -> int:
    """Return a value of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.decode import save_model

    table = Table(title="Peak memory of ranks (MiB)")
    for column in ("plan", "rank", "process", "before", "added", "counted", "ratio"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        save_model(model)
        for composite in COMPOSITES:
            for rank, (found, counted) in enumerate(run(model, composite, Path(temporary))):
                beyond = found["most"] - found["before"]
                row = (found["most"], found["before"], beyond, counted)
                shown = (f"{bytes_ / 2**20:,.0f}" for bytes_ in row)
                table.add_row(composite, str(rank), *shown, f"{beyond / counted:.2f}")
    Console().print(table)


def run(model: Path, composite: str, folder: Path) -> list[tuple[dict[str, int], int]]:
    """Return the measured memory of each rank of a run, and the memory count of its plan."""
    import parframe
    from parframe.checking import all_device_memory, memory_sizes
    from parframe.executors.local import create_launch, serve_requests
    from parframe.generation import Request, Result, Sampling, Settings

    plan = parframe.partition(parframe.load(model, positions=True), composite)
    settings = Settings(weights=model)
    prompt = tuple(3 + place % 1000 for place in range(PROMPT))
    requests = [Request(0, prompt, Sampling(max_new_tokens=NEW))]
    facts = {"figures": str(folder)}
    with create_launch(plan, requests, settings, str(Path(__file__)), facts) as ranks:
        ended = [
            one
            for one in serve_requests(ranks, plan, requests, settings)
            if isinstance(one, Result)
        ]
    if len(ended) != 1 or len(ended[0].tokens) != NEW:
        raise SystemExit(f"{composite} did not complete its request")
    counted = all_device_memory(plan, memory_sizes(plan, "float32", 1, PROMPT + NEW))
    return [
        (json.loads((folder / f"{rank}.json").read_text()), counted[rank].total)
        for rank in range(plan.mesh.size)
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the file descriptor that a fork server gets
        fork_server.main({"generate": measured}, prepare)
    else:
        main()
