"""Measure decode latency: systems decode the same Llama in turns, next to the memory limit."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from operator import truediv
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.alternating_runs import System, SystemTimes, run_alternately, start_system
from benchmarks.decode_worker import CONFIG

HANDWRITTEN = "hand-written, compiled, TP2"
SYSTEMS = (
    System("parframe TP2", "benchmarks.parframe_decoder", processes=2, threads=1),
    System("parframe TP2, over gloo", "benchmarks.parframe_gloo_decoder", processes=2, threads=1),
    System(HANDWRITTEN, "benchmarks.handwritten_decoder", processes=2, threads=1),
    System("transformers, eager, TP2", "benchmarks.transformers_decoder", processes=2, threads=1),
    System("parframe, one", "benchmarks.parframe_decoder", processes=1, threads=2),
    System("hand-written, compiled, one", "benchmarks.handwritten_decoder", processes=1, threads=2),
    System("reading, two processes", "benchmarks.memory_bandwidth", 2, 1, reads=True),
    System("reading, two threads", "benchmarks.memory_bandwidth", 1, 2, reads=True),
)
"""Systems that take turns; ratios are relative to the hand-written one."""

AGREE = 16
"""Number of first tokens in which all decoding systems must agree."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--tokens", type=int, default=200, help="tokens of each system in each round"
    )
    parser.add_argument("--only", default="", help="comma-separated parts of system names")
    options = parser.parse_args(arguments)
    chosen = [
        system for system in SYSTEMS if any(part in system.name for part in options.only.split(","))
    ]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        parameters = save_model(folder / "model")
        ready = []
        for system in chosen:
            started = stack.enter_context(start_system(system, folder))
            ready.append((started, started.answers()))
            print(f"{system.name}: ready in {ready[-1][1][0]['prepared']:.0f} s", file=sys.stderr)
        measured = run_alternately(ready, options.rounds, options.tokens)
    report(measured, parameters)
    disagreement(measured)


def save_model(folder: Path, layers: int = CONFIG["num_hidden_layers"]) -> int:
    """Save the model with seeded weights, and return its number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**CONFIG, "num_hidden_layers": layers})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="10GB")
    return int(model.num_parameters())


def report(measured: Sequence[SystemTimes], parameters: int) -> None:
    readers = [rates(times) for times in measured if times.system.reads]
    limits = [max(found) for found in zip(*readers, strict=True)]
    base = next((times for times in measured if times.system.name == HANDWRITTEN), None)
    title = f"decoding a Llama of {parameters / 1e6:.0f} M parameters in float32"
    table = Table(
        "system", "TPOT p10 per round (ms)", "p10 (ms)", "median (ms)", "relative to hand-written",
        "best round (GB/s)", "share of limit", "median share of limit", title=title,
    )  # fmt: skip
    for times in measured:
        decile, middle = median(times.deciles()), median(times.medians())
        decodes = not times.system.reads
        table.add_row(
            times.system.name,
            " ".join(f"{1e3 * value:.1f}" for value in times.deciles()),
            f"{1e3 * decile:.2f}",
            f"{1e3 * middle:.2f}",
            f"{decile / median(base.deciles()):.2f}" if base and decodes else "",
            f"{max(rates(times)):.1f}",
            f"{max(rates(times)) / max(limits):.2f}" if limits else "",
            f"{median(map(truediv, rates(times), limits)):.2f}" if limits else "",
        )
    Console(width=140).print(table)


def rates(times: SystemTimes) -> list[float]:
    """Return the memory bandwidth of all processes in GB/s, at the p10 of each round."""
    return [times.bytes / seconds / 1e9 for seconds in times.deciles()]


def disagreement(measured: Sequence[SystemTimes]) -> None:
    """Exit if systems decode different tokens."""
    decoded = {
        times.system.name: times.tokens[:AGREE] for times in measured if not times.system.reads
    }
    if len(set(decoded.values())) > 1:
        raise SystemExit(f"systems decode different tokens: {decoded}")


if __name__ == "__main__":
    main()
