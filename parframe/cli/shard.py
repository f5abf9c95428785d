"""`parframe shard`: a plan and its model's weights in, a file of weights for every rank out."""

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
from parframe.cli.progress import bytes_bar
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
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to make."
)
@click.option("--parallel", help="The composite, such as PP2TP4, where a model is given.")
@click.option(
    "--weights",
    help="Folder with the model's weights, or 'random'; without it that of the model.",
)
@click.option("--dtype", type=click.Choice(DTYPES), help="What weights are converted to.")
@click.option("--pickled", is_flag=True, help="Read weights from .bin or .pt files too.")
@click.option("--extra", is_flag=True, help="Leave out weights that the model has no use for.")
def command(
    source: Path,
    output: Path,
    parallel: str | None,
    weights: str | None,
    dtype: str | None,
    pickled: bool,
    extra: bool,
) -> Answer:
    """Write what each rank holds of the weights into a file of its own.

    MODEL_OR_PLAN is a plan's folder, a spec, or a model as for `parframe load`. The new folder
    holds the plan too: give it as the plan and as its weights, and each rank reads one file from
    end to end. Ranks that hold the same share one file.
    """
    import torch

    from parframe.weights import write_shards
    from parframe.weights.shard_writer import check_writable

    check_writable(output.absolute())
    with steps(2) as step:
        step(f"reading {source}")
        plan, near = _planned(source, parallel, dtype)
    with bytes_bar("writing") as told:
        written = write_shards(
            plan,
            weights or _near(near, source),
            output,
            dtype=getattr(torch, dtype) if dtype else None,
            progress=told,
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


def _planned(
    source: Path, parallel: str | None, dtype: str | None
) -> tuple[Plan, Path | DemoModel]:
    """The plan that is asked for, and the model whose weights go with it."""
    if source.name == FILE or (source / FILE).is_file():
        if parallel is not None:
            raise ParframeError(
                "usage", "--parallel", "the plan says that already", "give the model, or leave it"
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
            "usage", str(source), "is no plan, so it must be said how to split it",
            "give --parallel, such as --parallel TP2",
        )  # fmt: skip
    return parframe.partition(load_model(source, None, dtype), Spec(parallel=parallel)), source


def _near(model: Path | DemoModel, source: Path) -> Path:
    """The folder with a model's own weights."""
    found = weights_of(model)
    if found is None:
        raise ParframeError(
            "weights",
            str(source),
            "no weights are beside the model",
            "give --weights with their folder, or --weights random",
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
