"""Print what a token costs: contenders that decode the same Llama in turns, and memory's limit."""

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

from benchmarks.contender import CONFIG
from benchmarks.contest import Contender, Measured, alternate, running

HANDWRITTEN = "hand-written, compiled, TP2"
CONTENDERS = (
    Contender("parframe TP2", "benchmarks.partitioned", processes=2, threads=1),
    Contender("parframe TP2, over gloo", "benchmarks.partitioned_gloo", processes=2, threads=1),
    Contender(HANDWRITTEN, "benchmarks.handwritten", processes=2, threads=1),
    Contender("transformers, eager, TP2", "benchmarks.transformers_peer", processes=2, threads=1),
    Contender("parframe, one", "benchmarks.partitioned", processes=1, threads=2),
    Contender("hand-written, compiled, one", "benchmarks.handwritten", processes=1, threads=2),
    Contender("reading, two processes", "benchmarks.bandwidth", 2, 1, reads=True),
    Contender("reading, two threads", "benchmarks.bandwidth", 1, 2, reads=True),
)
"""All that take turns; every ratio is to the hand-written one."""

AGREE = 16
"""The first tokens in which all that decode must agree."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200, help="of each contender in each round")
    parser.add_argument("--only", default="", help="parts of contenders' names, comma between")
    options = parser.parse_args(arguments)
    chosen = [
        contender
        for contender in CONTENDERS
        if any(part in contender.name for part in options.only.split(","))
    ]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        parameters = saved(folder / "model")
        ready = []
        for contender in chosen:
            started = stack.enter_context(running(contender, folder))
            ready.append((started, started.answers()))
            print(
                f"{contender.name}: ready in {ready[-1][1][0]['prepared']:.0f} s", file=sys.stderr
            )
        measured = alternate(ready, options.rounds, options.tokens)
    report(measured, parameters)
    disagreement(measured)


def saved(folder: Path, layers: int = CONFIG["num_hidden_layers"]) -> int:
    """Save the model, with so many layers and seeded weights; the number of its parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**CONFIG, "num_hidden_layers": layers})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="10GB")
    return int(model.num_parameters())


def report(measured: Sequence[Measured], parameters: int) -> None:
    readers = [rates(one) for one in measured if one.contender.reads]
    limits = [max(found) for found in zip(*readers, strict=True)]
    base = next((one for one in measured if one.contender.name == HANDWRITTEN), None)
    title = f"decoding a Llama of {parameters / 1e6:.0f} M parameters in float32"
    table = Table(
        "contender", "p10 of each round, ms", "p10, ms", "median, ms", "to hand-written TP2",
        "GB/s, best round", "of the limit, best", "in each round, median", title=title,
    )  # fmt: skip
    for one in measured:
        decile, middle = median(one.deciles()), median(one.medians())
        decodes = not one.contender.reads
        table.add_row(
            one.contender.name,
            " ".join(f"{1e3 * value:.1f}" for value in one.deciles()),
            f"{1e3 * decile:.2f}",
            f"{1e3 * middle:.2f}",
            f"{decile / median(base.deciles()):.2f}" if base and decodes else "",
            f"{max(rates(one)):.1f}",
            f"{max(rates(one)) / max(limits):.2f}" if limits else "",
            f"{median(map(truediv, rates(one), limits)):.2f}" if limits else "",
        )
    Console(width=140).print(table)


def rates(one: Measured) -> list[float]:
    """Gigabytes that all processes read a second, in each round at its 10th percentile."""
    return [one.bytes / seconds / 1e9 for seconds in one.deciles()]


def disagreement(measured: Sequence[Measured]) -> None:
    """Refuse figures of contenders that do not decode the same tokens."""
    decoded = {
        one.contender.name: one.tokens[:AGREE] for one in measured if not one.contender.reads
    }
    if len(set(decoded.values())) > 1:
        raise SystemExit(f"contenders decode different tokens: {decoded}")


if __name__ == "__main__":
    main()
