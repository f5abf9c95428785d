"""Measure planning: seconds, memory, communication and shards of plans."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

LLAMA_3_70B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
LLAMA_3_405B = {
    **LLAMA_3_70B,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS = 6


def call_in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def measure_planning(dump_graph: str, composite: str) -> dict[str, float]:
    """Measure the seconds to partition and check a loaded graph, and the peak memory in GiB."""
    from parframe.checking import check
    from parframe.graph_json import parse_graph
    from parframe.partitioning import partition

    graph = parse_graph(dump_graph)
    partition(graph, "TP2")
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        plan = partition(graph, composite)
        middle = time.perf_counter()
        ok = check(plan).ok
        times.append((middle - begun, time.perf_counter() - middle))
    if not ok:
        raise SystemExit(f"{composite} does not pass the checks")
    best = min(times, key=sum)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"partition": best[0], "check": best[1], "peak": peak}


def dump_model(config: dict[str, Any]) -> str:
    """Return the graph of a configuration as JSON."""
    from parframe.graph_json import dump_graph
    from parframe.loading import load

    return dump_graph(load(config))


def load_seconds() -> tuple[float, float]:
    """Return the best seconds to load 2 and 126 layers of one width."""
    from parframe.loading import load

    times: dict[int, list[float]] = {2: [], 126: []}
    load({**LLAMA_3_405B, "num_hidden_layers": 3})
    for _ in range(4):
        for layers, found in times.items():
            begun = time.perf_counter()
            load({**LLAMA_3_405B, "num_hidden_layers": layers})
            found.append(time.perf_counter() - begun)
    return min(times[2]), min(times[126])


def reductions(family: str, width: int) -> tuple[float, float]:
    """Return the all-reduces of a layer under TP2, and their elements relative to an activation."""
    from parframe.loading import load
    from parframe.partitioning import partition
    from parframe.sizes import evaluate

    counts = {}
    for layers in (1, LAYERS):
        graph = load({"model_type": family, **SMALL, "num_hidden_layers": layers})
        program = partition(graph, "TP2").program(0)
        found = [op for op in program.operators if op.target == "parframe.all_reduce"]
        sizes = {"batch": 3, "sequence": 5}
        elements = [evaluate(program.tensors[op.outputs[0]].elements, sizes) for op in found]
        counts[layers] = (len(found), sum(elements))
    apart_ = LAYERS - 1
    number = (counts[LAYERS][0] - counts[1][0]) / apart_
    volume = (counts[LAYERS][1] - counts[1][1]) / apart_
    return number, volume / (3 * 5 * width)


def share(config: dict[str, Any], composite: str) -> float:
    """Return the largest shard of parameters relative to the even share of its stage."""
    from parframe.graph_json import parse_graph
    from parframe.partitioning import partition

    graph = parse_graph(call_in_process(dump_model, config))
    plan = partition(graph, composite)
    weights = {name for name, tensor in graph.parameters.items() if tensor.kind == "parameter"}
    stages: dict[int, list[int]] = {}
    wholes: dict[int, float] = {}
    for rank in range(plan.mesh.size):
        shards = {n: s for n, s in plan.weights(rank).items() if n in weights}
        stage = plan.program(rank).stage
        stages.setdefault(stage, []).append(sum(part.elements for part in shards.values()))
        wholes[stage] = sum(int(graph.parameters[name].elements) for name in shards)
    tensor = plan.mesh.degree("tp")
    return max(max(sizes) / (wholes[stage] / tensor) for stage, sizes in stages.items())


def help_seconds() -> float:
    """Return the fastest of ten calls of ``parframe --help``."""
    command = shutil.which("parframe") or f"{sys.exec_prefix}/bin/parframe"
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        subprocess.run([command, "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    """Measure, and print each metric next to its target."""
    rows: list[tuple[str, str, str]] = []

    def row(metric: str, result: str, target: str) -> None:
        rows.append((metric, result, target))
        print(json.dumps({"metric": metric, "result": result, "target": target}), file=sys.stderr)

    for label, config, composite, bar in (
        ("Llama 3 70B, PP8TP8, 64 devices", LLAMA_3_70B, "PP8TP8", "3 s"),
        ("126 layers, PP16TP8DP8, 1,024 devices", LLAMA_3_405B, "PP16TP8DP8", "15 s, 2 GiB"),
    ):
        cost = call_in_process(measure_planning, call_in_process(dump_model, config), composite)
        total = cost["partition"] + cost["check"]
        row(
            f"{label}: partition + check",
            f"{cost['partition']:.2f} + {cost['check']:.2f} = {total:.2f} s, "
            f"{cost['peak']:.2f} GiB",
            f"<= {bar}",
        )
    two, many = call_in_process(load_seconds)
    row("load of 126 layers over 2", f"{many:.2f} / {two:.2f} s = {many / two:.2f}", "<= 1.5")
    for family, least in (("llama", 2), ("gpt_neox", 1), ("cohere", 1)):
        number, volume = call_in_process(reductions, family, SMALL["hidden_size"])
        row(
            f"all-reduces per layer, {family}; bytes over an activation's",
            f"{number:g}; {volume:g}",
            f"{least}; {least}",
        )
    for label, config, composite in (
        ("Llama 3 70B PP8TP8", LLAMA_3_70B, "PP8TP8"),
        ("405B PP16TP8DP8", LLAMA_3_405B, "PP16TP8DP8"),
    ):
        row(
            f"parameters of a device over the even share, {label}",
            f"{share(config, composite):.4f}",
            "<= 1.02",
        )
    row("parframe --help", f"{help_seconds():.3f} s", "<= 0.3 s")
    table = Table("metric", "result", "target", title="Planning")
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
