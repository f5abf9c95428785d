"""Command `parframe shard`: write the weights of every rank to a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import RenderableType

import parframe
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.progress_bars import show_bytes
from parframe.cli.run_options import weights_options
from parframe.cli.source import load_model, model_of, shown, weights_of
from parframe.errors import ParframeError
from parframe.plan import Plan, plan_digest
from parframe.plan.plan_folder import FILE
from parframe.report.formatting import amount, counted, runs
from parframe.report.screen import heading, line, lines, table
from parframe.spec import DemoModel, Spec
from parframe.spec.keys import DTYPES


@answers("shard")
@click.argument("source", metavar="MODEL_OR_PLAN", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to create."
)
@click.option("--parallel", help="Composite, such as PP2TP4 (needed with a model).")
@click.option(
    "--weights", metavar="PATH", help='Weights folder (default: the model\'s), or "random".'
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), help="Dtype to convert weights to (default: their own)."
)
@weights_options
def command(
    source: Path,
    output: Path,
    parallel: str | None,
    weights: str | None,
    dtype: str | None,
    pickled: bool,
    extra: bool,
) -> Answer:
    """Write the weights of each rank to a file of its own.

    MODEL_OR_PLAN is a plan, a spec, or a model as for `parframe load`. The new folder also has the
    plan: use it as plan and as weights folder, and each rank reads one file from start to end.
    Ranks with equal weights share a file.
    """
    import torch

    from parframe.weights import write_shards
    from parframe.weights.shard_writer import check_writable

    check_writable(output.absolute())
    with steps(2) as step:
        step(f"reading {source}")
        plan, model = _load_or_make_plan(source, parallel, dtype)
    with show_bytes("writing") as progress:
        written = write_shards(
            plan,
            weights or _find_weights(model, source),
            output,
            dtype=getattr(torch, dtype) if dtype else None,
            progress=progress,
            pickled=pickled,
            extra=extra,
        )
    facts = {
        "plan": plan_digest(plan),
        "mesh": str(plan.mesh),
        "files": list(written.files),
        "bytes": written.bytes,
        "remarks": list(written.remarks),
        "written": shown(output),
    }
    return Answer(facts, partial(_draw, facts))


def _load_or_make_plan(
    source: Path, parallel: str | None, dtype: str | None
) -> tuple[Plan, Path | DemoModel]:
    """Return the plan, and the model that has its weights."""
    if source.name == FILE or (source / FILE).is_file():
        if parallel is not None:
            raise ParframeError(
                "usage",
                "--parallel",
                "the plan already has a composite",
                "give the model, or leave the option out",
            )
        plan = parframe.load_plan(source)
        return plan, Path(plan.graph.source)
    if source.suffix == ".toml":
        spec = Spec.read(source)
        spec = spec if parallel is None else attrs.evolve(spec, parallel=parallel)
        model = model_of(spec)
        return parframe.partition(load_model(model, None, dtype), spec), model
    if parallel is None:
        raise ParframeError(
            "usage", str(source), "is a model, and no composite is given",
            "give --parallel, such as --parallel TP2",
        )  # fmt: skip
    return parframe.partition(load_model(source, None, dtype), Spec(parallel=parallel)), source


def _find_weights(model: Path | DemoModel, source: Path) -> Path:
    """Return the folder with the model's weights."""
    found = weights_of(model)
    if found is None:
        raise ParframeError(
            "weights",
            str(source),
            "the model's folder has no weights",
            "give --weights PATH, or --weights random",
        )
    return found


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    files: dict[str, list[int]] = {}
    for rank, name in enumerate(facts["files"]):
        files.setdefault(name, []).append(rank)
    total = amount(sum(facts["bytes"].values()))
    yield heading("Shards", f"{counted(len(files), 'file')}, {total}")
    rows = [[name, runs(ranks), amount(facts["bytes"][name])] for name, ranks in files.items()]
    yield table(("file", "ranks", "bytes"), rows, right=("bytes",))
    if facts["remarks"]:
        yield lines(facts["remarks"])
    yield line(f"written to {facts['written']}")
