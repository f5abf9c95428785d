"""`parframe measure`: measure this machine and write a hardware file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parframe.atomic_files import write_text
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.writing import check_file
from parframe.errors import ParframeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parframe.hardware import Machine
    from parframe.measurement.rounds import Round

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DTYPES = ("float32", "bfloat16", "float16")


@answers("measure")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Hardware file to write."
)
@click.option(
    "--ranks", default="", metavar="N,...",
    help="Numbers of ranks to measure with (default: 1 and 2 on a CPU, 1 and all on GPUs).",
)  # fmt: skip
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(_DTYPES), default=("float32",),
    show_default=True, help="Dtype of the kernels; may be repeated.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True,
    help="Kind of devices.",
)  # fmt: skip
@click.option("--name", default="here", show_default=True, help="Name of the machine.")
@click.option(
    "--statistic", type=click.Choice(("median", "p10")), default="median", show_default=True,
    help="Statistic of repeated times: the median, or the 10th percentile, which other programs "
    "on this machine affect least.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1), default=2, show_default=True, metavar="N",
    help="Number of times that everything is measured.",
)  # fmt: skip
@click.option(
    "--patience", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
    help="Longest total time that a round waits for other programs to be idle.",
)  # fmt: skip
def command(
    output: Path, ranks: str, dtypes: tuple[str, ...], device: str, name: str, statistic: Any,
    rounds: int, patience: float,
) -> Answer:  # fmt: skip
    """Measure this machine, and write a hardware file for estimates and choices.

    For each number of ranks, as many processes time kernels together and one of them alone, time
    collectives, and run small models. It takes some minutes.
    """
    from parframe.executors.devices import check_device
    from parframe.launcher.processes import count_cpus
    from parframe.measurement.hardware_file import format_hardware_file
    from parframe.measurement.rank_measurement import MeasurementSettings
    from parframe.measurement.rounds import combine_rounds, measure_round

    check_file(output)
    if not _NAME.fullmatch(name):
        raise ParframeError("usage", "--name", f"is {name[:40]!r}", "use a-z, 0-9 and _")
    check_device(device, "parframe measure")
    most = count_cpus() if device == "cpu" else _gpus()
    counts = _counts(ranks, most) or sorted({1, min(2, most) if device == "cpu" else most})
    settings = [
        MeasurementSettings(name, count, device, tuple(dict.fromkeys(dtypes)), patience=patience)
        for count in counts
    ]
    measured: list[list[Round]] = [[] for _ in settings]
    with steps(len(settings) * rounds) as step:
        for number in range(rounds):
            for one_setting, own_rounds in zip(settings, measured, strict=True):
                step(f"round {number + 1} of {rounds}, {one_setting.ranks} ranks")
                own_rounds.append(measure_round(one_setting, lambda part: None))
    machines = [
        combine_rounds(one_setting, own_rounds, statistic)
        for one_setting, own_rounds in zip(settings, measured, strict=True)
    ]
    comment = f"Measured by `parframe measure --statistic {statistic}`."
    write_text(output, format_hardware_file(machines, [comment]))
    facts = {"output": str(output), "machines": [_machine_facts(machine) for machine in machines]}
    return Answer(facts, partial(_draw, facts))


def _machine_facts(machine: Machine) -> dict[str, Any]:
    """Return the facts of a machine; times of collectives are those of the shortest message."""
    ranks = min(2, machine.per_node)
    return {
        "devices": f"{machine.divided}x{machine.name}",
        "bandwidth_bytes_per_second": machine.device.bandwidth,
        "dense_tflops": {d: rate / 1e12 for d, rate in machine.device.rates.items()},
        "engine": dict(machine.engines["parframe"]),
        "collective_us": {
            times.kind: 1e6 * times.seconds[0]
            for times in machine.collectives
            if times.ranks == ranks
        },
    }


def _counts(ranks: str, most: int) -> list[int]:
    """Parse numbers of ranks, each once."""
    counts = []
    for part in ranks.split(",") if ranks else ():
        if not part.strip().isdecimal() or not 1 <= int(part) <= most:
            raise ParframeError(
                "usage", "--ranks", f"{part.strip()[:20]!r} is not a number from 1 to {most}",
                f"use numbers such as 1,2; this machine has {most} devices or processors",
            )  # fmt: skip
        counts.append(int(part))
    return sorted(set(counts))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    from parframe.report.screen import heading, table

    yield heading("Measurements", "each device while all devices compute")
    rows = [
        [
            machine["devices"],
            f"{machine['bandwidth_bytes_per_second'] / 1e9:.1f}",
            ", ".join(f"{d} {rate * 1e3:.0f}" for d, rate in machine["dense_tflops"].items()),
            ", ".join(f"{kind} {us:.0f}" for kind, us in machine["collective_us"].items()) or "-",
            f"{machine['engine']['step_overhead'] * 1e3:.2f} + "
            f"{machine['engine']['layer_overhead'] * 1e3:.3f} per layer",
        ]
        for machine in facts["machines"]
    ]
    columns = ("devices", "memory GB/s", "GFLOP/s", "collectives (us)", "engine overhead (ms/step)")
    yield table(columns, rows)
    devices, output = facts["machines"][-1]["devices"], facts["output"]
    yield f"written to {output}; use it with --hardware {output} --devices {devices}"
