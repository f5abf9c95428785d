"""Print predictions of parframe's own runs on this machine, beside the runs.

In each round the machine is measured as `parframe measure` does, with small models, and then a
Llama of 150 M parameters is run as `parframe bench` does, each way; what disturbs one disturbs the
other. Predictions come from the hardware file that is written, as `parframe estimate` makes them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

import parframe
from benchmarks.contender import CONFIG
from parframe.generation import Settings
from parframe.launcher.processes import count_cpus
from parframe.measurement.hardware_file import text_of
from parframe.measurement.idle_wait import Calm, busy
from parframe.measurement.machine import Asked
from parframe.measurement.rounds import Observed, machine, observe
from parframe.measurement.samples import Part, Times, merged, times_of
from parframe.measurement.token_timing import arrivals
from parframe.plan import Plan
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.estimate import Estimate

COMPOSITES = {"TP1": 1, "TP2": 2, "PP2": 2}
"""What is run, and on how many processes."""

PROMPT, NEW, BATCHES = 32, 64, 6
USE = UseCase("own", "one prompt at a time", PROMPT, NEW, 1)

PARTS: dict[Part, str] = {
    "low": "quiet moments: the 10th percentile of the quietest round",
    "middle": "the machine as it was: medians of medians",
}


@attrs.frozen
class Seen:
    """What a run of the model took, for a later token and for the first one."""

    token: Times
    first: Times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a round may wait")
    parser.add_argument("-o", "--output", type=Path, help="where the hardware file stays")
    options = parser.parse_args(arguments)
    if count_cpus() < 2:
        print("skipped: two ranks need two processors")
        return
    graph = parframe.load(dict(CONFIG), positions=True)
    plans = {name: parframe.partition(graph, name) for name in COMPOSITES}
    every = {
        ranks: Asked("here", ranks, patience=options.patience) for ranks in {*COMPOSITES.values()}
    }
    rounds: dict[int, list[Observed]] = {ranks: [] for ranks in every}
    seen: dict[str, list[Seen]] = {name: [] for name in COMPOSITES}
    for number in range(options.rounds):
        told(f"round {number + 1}, others use {busy(1.0):.0%} of the processors: measure")
        for ranks, asked in every.items():
            rounds[ranks].append(observe(asked, lambda text: None))
        for name, plan in plans.items():
            told(f"round {number + 1}: run {name}")
            seen[name].append(run(plan, options.patience / len(plans)))
    print("\nparframe's own runs: 150 M parameters in float32, one prompt of 32 tokens at a time")
    for part, words in PARTS.items():
        found = [machine(asked, rounds[ranks], part) for ranks, asked in every.items()]
        report(part, words, text_of(found), plans, seen, options.output)


def told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(plan: Plan, patience: float) -> Seen:
    settings = Settings(dtype="float32", compiled=True, batch_size=1)
    prompt = [(7 * number) % CONFIG["vocab_size"] for number in range(PROMPT)]
    found = arrivals(plan, [tuple(prompt)], NEW, settings, BATCHES, Calm(patience))
    token = times_of([seconds for batch in found for seconds in batch.windows()])
    return Seen(token, times_of([batch.first for batch in found]))


def report(
    part: Part,
    words: str,
    text: str,
    plans: dict[str, Plan],
    seen: dict[str, list[Seen]],
    output: Path | None,
) -> None:
    print(f"\n{words}\n")
    print("| composite | what | estimate ms | 80 % interval | measured ms | error % | inside |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        file = (
            Path(temporary) / "here.toml" if output is None else output.with_suffix(f".{part}.toml")
        )
        file.write_text(text)
        for name, plan in plans.items():
            devices = f"{COMPOSITES[name]}xhere"
            found = parframe.estimate(
                plan, devices, USE, weights="fp32", cache="fp32", hardware=[file]
            )
            point = found.points[0]
            token = merged([one.token for one in seen[name]]).part(part)
            first = merged([one.first for one in seen[name]]).part(part)
            row(name, "TPOT", point.tpot, token)
            row(name, "TTFT", point.ttft, first)


def row(name: str, what: str, estimate: Estimate, measured: float) -> None:
    low, high = estimate.interval()
    inside = "yes" if low <= measured <= high else "no"
    error = 100 * (estimate.value / measured - 1)
    numbers = f"{1e3 * estimate.value:.1f} | {1e3 * low:.1f} to {1e3 * high:.1f}"
    print(f"| {name} | {what} | {numbers} | {1e3 * measured:.1f} | {error:+.1f} | {inside} |")


if __name__ == "__main__":
    main()
