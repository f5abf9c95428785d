"""Report of a plan that was partitioned, checked and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from rich.console import RenderableType

from parframe.checking import Report, memory_sizes
from parframe.dims import Dimensions
from parframe.plan import Plan
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.memory import draw_memory, memory_facts
from parframe.report.mesh import draw_mesh, draw_splits, mesh_facts, split_facts
from parframe.report.model import draw_model, model_facts
from parframe.report.notes import draw_notes, note_facts
from parframe.report.screen import BLANK, line
from parframe.report.stages import draw_stages, stage_facts, stage_layers
from parframe.report.verdicts import check_facts, draw_check, draw_proof, draw_run
from parframe.spec import Spec


def applied_facts(
    plan: Plan,
    dimensions: Dimensions,
    report: Report,
    proof: Mapping[str, Any],
    spec: Spec,
    source: str,
) -> dict[str, Any]:
    """Return all facts about a plan, by section.

    Parameters
    ----------
    plan
        Plan.
    dimensions
        Named dimensions of its graph.
    report
        Result of the checks.
    proof
        Facts of the verification.
    spec
        Spec of the plan.
    source
        Description of the model's source.
    """
    sizes = memory_sizes(plan, spec.dtype, spec.batch, spec.sequence)
    return {
        "spec": spec.origin.name,
        "parallel": spec.parallel,
        "model": {**model_facts(plan.graph), "source": source},
        "mesh": mesh_facts(plan.mesh, plan.placing),
        "split": split_facts(plan.placing, dimensions, stage_layers(plan)),
        "stages": stage_facts(plan),
        "communication": traffic_facts(report.traffic),
        "memory": memory_facts(report.memory, spec.memory_budget),
        "notes": note_facts(plan.notes, sizes.values),
        "check": check_facts(report, sizes),
        "verify": dict(proof),
        "run": None,
        "written": None,
    }


def draw_applied(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the sections, with an empty line after each."""
    drawings: dict[str, Callable[[Any], Iterator[RenderableType]]] = {
        "model": partial(draw_model, brief=True),
        "mesh": draw_mesh,
        "split": draw_splits,
        "stages": draw_stages,
        "communication": partial(draw_traffic, column="bytes, all devices"),
        "memory": draw_memory,
        "notes": draw_notes,
        "check": draw_check,
        "verify": partial(draw_proof, devices=facts["mesh"]["devices"]),
        "run": draw_run,
    }
    for name, draw in drawings.items():
        if facts[name] is None:
            continue
        yield from draw(facts[name])
        if name == "model":
            yield line(facts["model"]["source"])
        yield BLANK
    written = facts["written"]
    yield line(f"written to {written}" if written else "not written", style="bold")
