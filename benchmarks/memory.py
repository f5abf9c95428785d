"""Print how much memory ranks of a run take at most, beside what their plan counts for them.

The peak is that of the process (VmHWM) without what it had before it began: the interpreter and
what it imports. Run as the module that starts ranks, it is
`parframe.executors.local_worker` with the
figures written down.
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
    """Serve, and write down how much memory there was at first and at most."""
    before = status("VmRSS")
    generate(worker)
    figures = {"before": before, "most": status("VmHWM")}
    (Path(worker.facts["figures"]) / f"{worker.rank}.json").write_text(json.dumps(figures))


def status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.decode import saved

    table = Table(title="memory of ranks at most, MiB")
    for column in ("plan", "rank", "process", "before", "beyond", "counted", "ratio"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        saved(model)
        for composite in COMPOSITES:
            for rank, (found, counted) in enumerate(run(model, composite, Path(temporary))):
                beyond = found["most"] - found["before"]
                row = (found["most"], found["before"], beyond, counted)
                shown = (f"{bytes_ / 2**20:,.0f}" for bytes_ in row)
                table.add_row(composite, str(rank), *shown, f"{beyond / counted:.2f}")
    Console().print(table)


def run(model: Path, composite: str, folder: Path) -> list[tuple[dict[str, int], int]]:
    """What each rank of a run took, and what the plan counts for it."""
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
    held = all_device_memory(plan, memory_sizes(plan, "float32", 1, PROMPT + NEW))
    return [
        (json.loads((folder / f"{rank}.json").read_text()), held[rank].total)
        for rank in range(plan.mesh.size)
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the descriptor that a starting process is given
        fork_server.main({"generate": measured}, prepare)
    else:
        main()
