"""`parframe dims`: prints the named dimensions of a model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from parframe import hooks
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import model_argument, plugins_option
from parframe.cli.source import load_model
from parframe.dims import name_dimensions
from parframe.report.model import dimension_facts, draw_dimensions


@answers("dims")
@model_argument
@plugins_option
def command(model: Path, plugins: tuple[str, ...]) -> Answer:
    """List the named dimensions of a model.

    The table has the name, role and size of each dimension, and the tensors that have it.

    MODEL is a Hugging Face folder, a config.json, a .pt2, a graph.json, or a spec that names a
    model.
    """
    with steps(2) as step:
        step(f"loading {model}")
        graph = load_model(model)
        step("naming dimensions")
        facts = dimension_facts(name_dimensions(graph, hooks.rules((), plugins)), graph)
    return Answer({"model": str(model), "dimensions": facts}, partial(draw_dimensions, facts))
