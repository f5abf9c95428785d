"""Compare estimates of parframe's own runs on this machine with the measured runs.

Each round measures the machine as `parframe measure` does, then runs a Llama of 150 M parameters as
`parframe bench` does, with each composite, so that disturbances affect both. Estimates come from
the hardware file, as in `parframe estimate`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

import parframe
from benchmarks.decode_worker import CONFIG
from parframe.generation import Settings
from parframe.launcher.processes import count_cpus
from parframe.measurement.hardware_file import format_hardware_file
from parframe.measurement.idle_wait import IdleWait, measure_cpu_use
from parframe.measurement.rank_measurement import MeasurementSettings
from parframe.measurement.rounds import Round, combine_rounds, measure_round
from parframe.measurement.samples import Statistic, Times, merge_rounds, summarize_times
from parframe.measurement.token_timing import time_batches
from parframe.plan import Plan
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.estimate import Estimate

COMPOSITES = {"TP1": 1, "TP2": 2, "PP2": 2}
"""Composites to run, with their numbers of processes."""

PROMPT, NEW, BATCHES = 32, 64, 6
USE = UseCase("own", "one prompt at a time", PROMPT, NEW, 1)

STATISTICS: dict[Statistic, str] = {
    "p10": "10th percentile of the fastest round, which other programs affect least",
    "median": "median of the medians of all rounds",
}


@attrs.frozen
class Latency:
    """Times per output token and times to first token of a run of the model."""

    tpot: Times
    ttft: Times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--patience", type=float, default=60.0, help="longest wait for idle processors in a round"
    )
    parser.add_argument("-o", "--output", type=Path, help="where to keep the hardware file")
    options = parser.parse_args(arguments)
    if count_cpus() < 2:
        print("skipped: two ranks need two processors")
        return
    graph = parframe.load(dict(CONFIG), positions=True)
    plans = {name: parframe.partition(graph, name) for name in COMPOSITES}
    settings = {
        ranks: MeasurementSettings("here", ranks, patience=options.patience)
        for ranks in {*COMPOSITES.values()}
    }
    rounds: dict[int, list[Round]] = {ranks: [] for ranks in settings}
    latencies: dict[str, list[Latency]] = {name: [] for name in COMPOSITES}
    for number in range(options.rounds):
        log(f"round {number + 1}, others use {measure_cpu_use(1.0):.0%} of the processors: measure")
        for ranks, own in settings.items():
            rounds[ranks].append(measure_round(own, lambda part: None))
        for name, plan in plans.items():
            log(f"round {number + 1}: run {name}")
            latencies[name].append(run(plan, options.patience / len(plans)))
    print("\nparframe's own runs: 150 M parameters in float32, one prompt of 32 tokens at a time")
    for statistic, title in STATISTICS.items():
        machines = [
            combine_rounds(own, rounds[ranks], statistic) for ranks, own in settings.items()
        ]
        text = format_hardware_file(machines)
        report(statistic, title, text, plans, latencies, options.output)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(plan: Plan, patience: float) -> Latency:
    settings = Settings(dtype="float32", compiled=True, batch_size=1)
    prompt = [(7 * number) % CONFIG["vocab_size"] for number in range(PROMPT)]
    wait = IdleWait(patience).wait
    times = time_batches(plan, [tuple(prompt)], NEW, settings, BATCHES, wait)
    return Latency(
        summarize_times([seconds for batch in times for seconds in batch.window_means()]),
        summarize_times([batch.ttft for batch in times]),
    )


def report(
    statistic: Statistic,
    title: str,
    text: str,
    plans: dict[str, Plan],
    latencies: dict[str, list[Latency]],
    output: Path | None,
) -> None:
    print(f"\n{title}\n")
    print("| composite | metric | estimate ms | 80 % interval | measured ms | error % | inside |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        file = (
            Path(temporary) / "here.toml"
            if output is None
            else output.with_suffix(f".{statistic}.toml")
        )
        file.write_text(text)
        for name, plan in plans.items():
            devices = f"{COMPOSITES[name]}xhere"
            estimates = parframe.estimate(
                plan, devices, USE, weights="fp32", cache="fp32", hardware=[file]
            )
            point = estimates.points[0]
            tpot = merge_rounds([latency.tpot for latency in latencies[name]]).get(statistic)
            ttft = merge_rounds([latency.ttft for latency in latencies[name]]).get(statistic)
            row(name, "TPOT", point.tpot, tpot)
            row(name, "TTFT", point.ttft, ttft)


def row(name: str, metric: str, estimate: Estimate, measured: float) -> None:
    low, high = estimate.interval()
    inside = "yes" if low <= measured <= high else "no"
    error = 100 * (estimate.value / measured - 1)
    numbers = f"{1e3 * estimate.value:.1f} | {1e3 * low:.1f} to {1e3 * high:.1f}"
    print(f"| {name} | {metric} | {numbers} | {1e3 * measured:.1f} | {error:+.1f} | {inside} |")


if __name__ == "__main__":
    main()
