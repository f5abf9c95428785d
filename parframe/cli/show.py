"""`parframe show`: prints a plan's mesh, stages and notes, or the operators of one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

import parframe
from parframe.checking import memory_sizes
from parframe.cli.answer import Answer, answers
from parframe.cli.options import plan_argument
from parframe.report.device import device_facts, draw_device
from parframe.report.mesh import draw_mesh, draw_placing, mesh_facts, placing_facts
from parframe.report.model import draw_model, model_facts
from parframe.report.notes import draw_notes, note_facts
from parframe.report.screen import BLANK
from parframe.report.stages import draw_stages, stage_facts


@answers("show")
@plan_argument
@click.option("--device", type=int, metavar="RANK", help="Show the operators of one rank.")
@click.option("--mesh", is_flag=True, help="Show only the rank grid.")
@click.option("--stages", is_flag=True, help="Show only the pipeline stages.")
def command(plan: Path, device: int | None, mesh: bool, stages: bool) -> Answer:
    """Show the mesh, the stages or the operators of a plan.

    PLAN is a folder that `parframe apply` wrote, or the plan.json in it.
    """
    found = parframe.load_plan(plan)
    if device is not None:
        facts = device_facts(found, device)
        return Answer(facts, partial(draw_device, facts))
    whole = not (mesh or stages)
    facts = {}
    if whole:
        facts["model"] = model_facts(found.graph)
    if mesh or whole:
        facts["mesh"] = mesh_facts(found.mesh, found.placing)
    if whole:
        facts["placed"] = placing_facts(found)
    if stages or whole:
        facts["stages"] = stage_facts(found)
    if whole:
        facts["notes"] = note_facts(found.notes, memory_sizes(found).values)
    return Answer(facts, partial(_draw, facts))


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    drawings: dict[str, Callable[[Any], Iterator[RenderableType]]] = {
        "model": partial(draw_model, brief=True),
        "mesh": draw_mesh,
        "placed": draw_placing,
        "stages": draw_stages,
        "notes": draw_notes,
    }
    for number, (name, fact) in enumerate(facts.items()):
        if number:
            yield BLANK
        yield from drawings[name](fact)
