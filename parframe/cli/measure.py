"""`parframe measure`: this machine in, a file of hardware for estimating and choosing out."""

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

    from parframe.measurement.rounds import Observed

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DTYPES = ("float32", "bfloat16", "float16")


@answers("measure")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.option(
    "--ranks", default="", metavar="N,...",
    help="Into how many devices the machine is divided; on a CPU 1 and 2 without it, on GPUs 1 and "
    "all.",
)  # fmt: skip
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(_DTYPES), default=("float32",),
    show_default=True, help="What kernels are measured in; may be repeated.",
)  # fmt: skip
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option("--name", default="here", show_default=True, help="What the machine will be called.")
@click.option(
    "--part", type=click.Choice(("middle", "low")), default="middle", show_default=True,
    help="Of several times the median, or those of moments when other programs disturb least.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1), default=2, show_default=True, metavar="N",
    help="How often all is measured, in turn.",
)  # fmt: skip
@click.option(
    "--patience", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
    help="How long a round waits in all for moments in which other programs do nothing.",
)  # fmt: skip
def command(
    output: Path, ranks: str, dtypes: tuple[str, ...], device: str, name: str, part: Any,
    rounds: int, patience: float,
) -> Answer:  # fmt: skip
    """Measure this machine, so that plans can be priced on it.

    For each number of ranks so many processes compute at once, one of them alone, and exchange,
    and small models are run. It takes some minutes.
    """
    from parframe.executors.devices import check_device
    from parframe.launcher.processes import count_cpus
    from parframe.measurement.hardware_file import text_of
    from parframe.measurement.machine import Asked
    from parframe.measurement.rounds import machine, observe

    check_file(output)
    if not _NAME.fullmatch(name):
        raise ParframeError(
            "usage", "--name", f"is {name[:40]!r}", "give small letters, digits and _"
        )
    check_device(device, "parframe measure")
    most = count_cpus() if device == "cpu" else _gpus()
    counts = _counts(ranks, most) or sorted({1, min(2, most) if device == "cpu" else most})
    kinds = tuple(dict.fromkeys(dtypes))
    every = [Asked(name, count, device, kinds, patience=patience) for count in counts]
    seen: list[list[Observed]] = [[] for _ in every]
    with steps(len(every) * rounds) as step:
        for number in range(rounds):
            for asked, own in zip(every, seen, strict=True):
                step(f"round {number + 1} of {rounds}, {asked.ranks} ranks")
                own.append(observe(asked, lambda told: None))
    found = [machine(asked, own, part) for asked, own in zip(every, seen, strict=True)]
    write_text(output, text_of(found, [f"Measured by `parframe measure --part {part}`."]))
    facts = {
        "output": str(output),
        "machines": [
            {
                "devices": f"{one.divided}x{one.name}",
                "bandwidth_bytes_per_second": one.device.bandwidth,
                "dense_tflops": {d: rate / 1e12 for d, rate in one.device.rates.items()},
                "engine": dict(one.engines["parframe"]),
                "exchange_seconds": {
                    exchange.kind: exchange.seconds[0]
                    for exchange in one.collectives if exchange.ranks == min(2, one.per_node)
                },
            }
            for one in found
        ],
    }  # fmt: skip
    return Answer(facts, partial(_draw, facts))


def _counts(ranks: str, most: int) -> list[int]:
    """The numbers of ranks that are asked for, each once."""
    counts = []
    for part in ranks.split(",") if ranks else ():
        if not part.strip().isdecimal() or not 1 <= int(part) <= most:
            raise ParframeError(
                "usage", "--ranks", f"{part.strip()[:20]!r} is not from 1 to {most}",
                f"give numbers such as 1,2; there are {most} devices or processors here",
            )  # fmt: skip
        counts.append(int(part))
    return sorted(set(counts))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    from parframe.report.screen import heading, table

    yield heading("Measured", "each device while all of them compute")
    rows = [
        [
            one["devices"],
            f"{one['bandwidth_bytes_per_second'] / 1e9:.1f}",
            ", ".join(f"{d} {rate * 1e3:.0f}" for d, rate in one["dense_tflops"].items()),
            ", ".join(f"{k} {s * 1e6:.0f}" for k, s in one["exchange_seconds"].items()) or "-",
            f"{one['engine']['step'] * 1e3:.2f} + {one['engine']['layer'] * 1e3:.3f} a layer",
        ]
        for one in facts["machines"]
    ]
    names = ("devices", "GB/s", "GFLOPS", "exchanges, us", "engine, ms a step")
    yield table(names, rows)
    devices = facts["machines"][-1]["devices"]
    yield f"written to {facts['output']}; now say --hardware {facts['output']} --devices {devices}"
