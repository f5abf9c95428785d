"""Predictions of whole engines against measured rows: what `make validate` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import own_run_estimates
from benchmarks.calibration.engine_rows import TABLES, TRACES, Measured, read_folder
from benchmarks.calibration.fitted_rows import split_rows
from benchmarks.calibration.validation import (
    Errors,
    Outcome,
    by_engine,
    by_engine_device_model,
    chosen,
    left_out_outcomes,
    shipped_outcomes,
    summary,
)
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model

FOLDER = Path(__file__).parents[2] / "shared" / "measurements"


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else FOLDER
    tables(folder)
    own_run_estimates.main(())


def tables(folder: Path) -> None:
    """Compare with the tables of measurements, where they are there."""
    lacking = [name for name in (*TABLES, TRACES) if not (folder / name).is_file()]
    if lacking:
        print(f"skipped: {folder} has no {', '.join(lacking)}")
        return
    registry = Registry(servable_model)
    rows, held_out_rows = split_rows(read_folder(folder))
    held_out(held_out_rows, registry)
    fitted = shipped_outcomes(rows, registry)
    show("Rows that constants were fitted to", summary(fitted, by_engine_device_model))
    left = left_out_outcomes(rows, registry)
    for split in ("model", "device", "lengths"):
        own_run_estimates = [one for one in left if one.left == split]
        show(f"Left out, one {split} at a time", summary(own_run_estimates, by_engine))
    figures(fitted, left)
    choice(left)
    kernels(folder)
    collectives(folder)


def held_out(rows: Sequence[Measured], registry: Registry) -> None:
    """Print the errors of rows that no constant was fitted to, and how many are not predicted."""
    outcomes = shipped_outcomes(rows, registry)
    unpredicted = len(rows) - len(outcomes)
    print(f"\nHeld-out rows: {len(rows)}, {unpredicted} of them without a prediction")
    if outcomes:
        show("Held-out rows, all", summary(outcomes, _named("all held-out rows")))
        show("Held-out rows, by engine and metric", summary(outcomes, by_engine))
        show("Held-out rows, by device and model too", summary(outcomes, by_engine_device_model))


def show(title: str, lines: Iterable[Errors]) -> None:
    print(f"\n{title}\n")
    print("| what | rows | median % | mean % | bias % | in 80 % interval |")
    print("| --- | --- | --- | --- | --- | --- |")
    for one in lines:
        shares = (one.median, one.mean, one.bias, one.inside)
        numbers = " | ".join(f"{100 * share:.1f}" for share in shares)
        print(f"| {', '.join(one.what)} | {one.rows} | {numbers} |")


def figures(fitted: Sequence[Outcome], left: Sequence[Outcome]) -> None:
    def of(outcomes: Sequence[Outcome], split: str, *tables: str) -> list[Outcome]:
        return [one for one in outcomes if one.left == split and one.case.measured.table in tables]

    throughput = "trtllm_throughput_ifb.csv"
    served = [
        one
        for one in of(left, "lengths", "aic_silicon_sample_agg.csv")
        if one.case.measured.asked.metric == "tpot"
    ]
    decode = [
        one
        for one in of(fitted, "nothing", "gptfast.csv")
        if one.case.measured.asked.weights == "bf16"
        and one.case.measured.asked.metric == "decode_tokens_per_s"
    ]
    decode_left = [
        one
        for one in of(left, "model", "gptfast.csv")
        if one.case.measured.asked.weights == "bf16"
        and one.case.measured.asked.metric == "decode_tokens_per_s"
    ]
    composites = of(fitted, "nothing", "argonne_tp_pp_ep.csv")
    split = [one for one in composites if (one.case.measured.asked.pipeline or 1) > 1]
    named = {
        "in-flight throughput, a model left out": of(left, "model", throughput),
        "in-flight throughput, a device left out": of(left, "device", throughput),
        "served time per token, dense, lengths left out": served,
        "gpt-fast bf16 decode": decode,
        "gpt-fast bf16 decode, a model left out": decode_left,
        "A100 composites": composites,
        "A100 composites, with pipelines": split,
        "A100 composites, a model left out": of(left, "model", "argonne_tp_pp_ep.csv"),
        "all rows, nothing left out": list(fitted),
        "all rows, a model left out": [one for one in left if one.left == "model"],
        "all rows, a device left out": [one for one in left if one.left == "device"],
    }
    show("Figures", [line for name, some in named.items() for line in summary(some, _named(name))])


def _named(name: str):  # type: ignore[no-untyped-def]
    return lambda one: (name,)


def choice(left: Sequence[Outcome]) -> None:
    print("\nChoice among measured configurations under limits of a token's time\n")
    print("| engine | left out | choices | exact % | limit violated % | regret % | none kept % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for split in ("model", "lengths"):
        own_run_estimates = [one for one in left if one.left == split]
        for name in (*dict.fromkeys(one.engine for one in own_run_estimates), "all"):
            found = chosen(one for one in own_run_estimates if name in (one.engine, "all"))
            if found.cases:
                shares = (found.exact, found.violated, found.regret, found.none)
                numbers = " | ".join(f"{100 * share:.1f}" for share in shares)
                print(f"| {name} | {split} | {found.cases} | {numbers} |")


def kernels(folder: Path) -> None:
    """Print how far times of single kernels are off; left out: by other GPUs' figures alone."""
    from benchmarks.calibration.kernel_fit import summed
    from benchmarks.calibration.kernel_rows import read_rows
    from parframe.price.cost.efficiency import shipped

    print("\nSingle kernels\n")
    print("| operator | GPU | dtype | rows | median % | mean % | left out: median % | mean % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in summed(shipped(), read_rows(folder)):
        shares = (one.median, one.mean, one.unseen_median, one.unseen_mean)
        numbers = " | ".join(f"{100 * share:.1f}" for share in shares)
        what = f"{one.operator} {one.kind}".strip()
        print(f"| {what} | {one.device} | {one.dtype} | {one.rows} | {numbers} |")


def collectives(folder: Path) -> None:
    """Print how far times of collectives are off."""
    from benchmarks.calibration.collective_fit import errors, ratios
    from benchmarks.calibration.collective_rows import read_rows
    from parframe.price.cost.communication_times import shipped

    print("\nCollectives\n")
    print("| GPU | machine | kind | implementation | table | rows | median % | mean % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in errors(ratios(read_rows(folder), shipped().constants)):
        what = " | ".join((one.device, one.machine, one.kind, one.implementation, one.source))
        print(f"| {what} | {one.rows} | {100 * one.median:.1f} | {100 * one.mean:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
