"""`parframe load`: loads a model and writes its operator graph as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from parframe import graph_json
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import model_argument
from parframe.cli.source import load_model
from parframe.report.model import draw_model, model_facts
from parframe.report.screen import line


@answers("load")
@model_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write the graph to, as JSON (default: none).",
)
def command(model: Path, output: Path | None) -> Answer:
    """Load a model as an operator graph and write it as JSON.

    MODEL is a Hugging Face folder, a config.json, a .pt2, a graph.json, or a spec that names a
    model. No weights are read.
    """
    with steps(1) as step:
        step(f"loading {model}")
        graph = load_model(model)
    if output is not None:
        graph_json.write_graph(graph, output)
    facts = {**model_facts(graph), "written": str(output) if output else None}
    return Answer(facts, partial(_draw, facts))


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from draw_model(facts)
    written = facts["written"]
    yield line(f"written to {written}" if written else "not written: give -o graph.json")
