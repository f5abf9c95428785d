"""`parframe check`: reads a plan, prints the findings of its checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import RenderableType

import parframe
from parframe import hooks
from parframe.checking import memory_sizes
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import memory_options, plan_argument, plugins_option
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.memory import draw_memory, memory_facts
from parframe.report.screen import BLANK
from parframe.report.verdicts import check_error, check_facts, draw_check


@answers("check")
@plan_argument
@memory_options
@plugins_option
def command(
    plan: Path,
    plugins: tuple[str, ...],
    budget: int | None,
    dtype: str | None,
    batch: int | None,
    sequence: int | None,
) -> Answer:
    """Check a plan without running it.

    PLAN is a folder that `parframe apply` wrote, or the plan.json in it.
    """
    with steps(2) as step:
        step(f"reading {plan}")
        found = parframe.load_plan(plan)
        step(f"checking {found.mesh.size} devices")
        report = parframe.check(
            found,
            budget=budget,
            dtype=dtype,
            batch=batch,
            sequence=sequence,
            rules=hooks.rules((), (*found.plugins, *plugins)),
        )
    facts = {
        "check": check_facts(report, memory_sizes(found, dtype, batch, sequence)),
        "communication": traffic_facts(report.traffic),
        "memory": memory_facts(report.memory, budget),
    }
    return Answer(facts, partial(_draw, facts), check_error(report, str(plan)))


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from draw_traffic(facts["communication"], "bytes, all devices")
    yield BLANK
    yield from draw_memory(facts["memory"])
    yield BLANK
    yield from draw_check(facts["check"])
