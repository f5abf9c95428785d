"""Compare generation of mixtures of experts in real processes with transformers.

Every row is a plan of a tiny model with random weights, the last one with 64 processes. It shows
whether all tokens are equal, and the seconds of the whole run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from greedy_generation import PROMPTS, completed, expected, saved

import parframe
from parframe.errors import ParframeError
from parframe.generation import Settings

MODELS = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss")
COMPOSITES = ("EP2", "EP4", "EP2TP2", "EP2PP2")
MANY = "EP8TP4DP2"
LARGEST = {"num_local_experts": 8}
NEW = 16


@attrs.frozen
class Row:
    """Result of one plan: model, devices, outcome and seconds."""

    model: str
    composite: str
    devices: int
    outcome: str
    seconds: float


def rows(only: str) -> Iterator[Row]:
    """Run every plan whose model and composite contain a text."""
    wanted = [(name, composite) for name in MODELS for composite in COMPOSITES]
    wanted.append(("mixtral", MANY))
    with tempfile.TemporaryDirectory() as home:
        for name, composite in wanted:
            if only in f"{name} {composite}":
                yield measured(Path(home), name, composite)


def measured(home: Path, name: str, composite: str) -> Row:
    """Run one plan."""
    many = composite == MANY
    folder = home / f"{name} {composite}"
    model = saved(name, folder, **(LARGEST if many else {}))
    prompts = PROMPTS * 4 if many else PROMPTS
    wanted = expected(model, PROMPTS, NEW) * (len(prompts) // len(PROMPTS))
    plan = parframe.partition(parframe.load(folder, positions=True), composite)
    begun = time.monotonic()
    try:
        same = completed(plan, prompts, NEW, Settings(folder)) == wanted
        outcome = "equal" if same else "DIFFERENT"
    except ParframeError as error:
        outcome = str(error)
    return Row(name, composite, plan.mesh.size, outcome, time.monotonic() - begun)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    given = parser.parse_args(arguments)
    table = Table("model", "composite", "processes", "tokens", "seconds", title="Experts")
    found = []
    for row in rows(given.only):
        found.append(row)
        print(*attrs.astuple(row), file=sys.stderr, flush=True)
        table.add_row(row.model, row.composite, str(row.devices), row.outcome, f"{row.seconds:.1f}")
    Console(width=100).print(table)
    sys.exit(any(row.outcome != "equal" for row in found))


if __name__ == "__main__":
    main()
