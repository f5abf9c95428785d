"""`parframe verify`: executes all devices of a plan here and compares with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import RenderableType

import parframe
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import plan_argument, trial_options, weights_option
from parframe.cli.source import refuse_too_large, weights_text
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.screen import BLANK
from parframe.report.verdicts import draw_proof, proof_error, proof_facts


@answers("verify")
@plan_argument
@weights_option
@trial_options
def command(
    plan: Path,
    weights: Path | None,
    batch: int | None,
    sequence: int | None,
    seed: int,
    dtype: str,
) -> Answer:
    """Execute all devices of a plan in this process and compare with the model.

    PLAN is a folder that `parframe apply` wrote, or the plan.json in it.
    """
    with steps(2) as step:
        step(f"reading {plan}")
        found = parframe.load_plan(plan)
        refuse_too_large(found.graph)
        step(f"running {found.mesh.size} devices")
        proof = parframe.verify(
            found, weights=weights, batch=batch, sequence=sequence, seed=seed, dtype=dtype
        )
    facts = {
        "devices": found.mesh.size,
        "verify": proof_facts(proof, found.graph, weights_text(weights, seed)),
        "communication": traffic_facts(proof.communication),
    }
    return Answer(facts, partial(_draw, facts), proof_error(proof, str(plan)))


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from draw_traffic(facts["communication"], "bytes sent")
    yield BLANK
    yield from draw_proof(facts["verify"], facts["devices"])
