"""`parframe apply`: partitions the model of a spec, checks, verifies and writes the plan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click

import parframe
from parframe.cli.answer import Answer, answers, dump, steps
from parframe.cli.options import memory_options
from parframe.cli.source import (
    described,
    load_model,
    model_of,
    refuse_too_large,
    shown,
    weights_of,
    weights_text,
)
from parframe.cli.spec_prompts import run_spec_prompts
from parframe.cli.writing import check_folder, write_plan
from parframe.dims import name_dimensions
from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.report.plan import applied_facts, draw_applied
from parframe.report.verdicts import check_error, proof_error, proof_facts, unverified_facts
from parframe.spec import Spec


@answers("apply")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Model (default: the spec's).")
@click.option("--parallel", help="Composite, such as PP2TP4 (default: the spec's).")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write the plan to (default: the spec's).",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder with weights to verify with (default: the model's, else random).",
)
@click.option(
    "--execute/--no-execute",
    default=None,
    help="Verify the plan by execution, or not (default: as the spec says).",
)
@memory_options
def command(spec: Path, weights: Path | None, **options: Any) -> Answer:
    """Partition the model of a spec; check, verify and write the plan.

    An option overrides the same key of the spec. The plan is written only if it passes its checks
    and, where it is executed, computes the same as the model.
    """
    read = _with_options(Spec.read(spec), options)
    source = model_of(read)
    if read.output is not None:
        check_folder(read.output)
    read.placing()  # reports mistakes in the spec before the model is loaded
    with steps(6) as step:
        step("loading the model")
        graph = load_model(source, positions=None if read.run.prompts else False)
        if read.verify.execute:
            refuse_too_large(graph)
        step("partitioning")
        plan = parframe.partition(graph, read)
        step(f"checking {plan.mesh.size} devices")
        report = parframe.check(
            plan,
            budget=read.memory_budget,
            dtype=read.dtype,
            batch=read.batch,
            sequence=read.sequence,
            rules=read.rules(),
        )
        step(f"verifying {plan.mesh.size} devices")
        error = check_error(report, str(spec))
        proof, proof_fault = _proof(plan, read, weights or weights_of(source), str(spec), report.ok)
        error = error or proof_fault
        facts = applied_facts(
            plan, name_dimensions(graph, read.rules()), report, proof, read, described(source)
        )
        if read.run.prompts and error is None:
            step(f"running {plan.mesh.size} processes")
            facts = {
                **facts,
                "run": run_spec_prompts(plan, read, source, weights or weights_of(source)),
            }
        step("writing")
        if read.output is not None and error is None:
            write_plan(plan, read.output, dump(facts, indent=1) + "\n")
            facts = {**facts, "written": shown(read.output)}
    return Answer(facts, partial(draw_applied, facts), error)


def _with_options(spec: Spec, options: dict[str, Any]) -> Spec:
    """Return a spec with the keys that options override."""
    names = {"budget": "memory_budget"}
    changes = {
        names.get(name, name): value
        for name, value in options.items()
        if value is not None and name != "execute"
    }
    if options["execute"] is not None:
        changes["verify"] = attrs.evolve(spec.verify, execute=options["execute"])
    return attrs.evolve(spec, **changes) if changes else spec


def _proof(
    plan: Plan, spec: Spec, weights: Path | None, where: str, passed: bool
) -> tuple[dict[str, Any], ParframeError | None]:
    """Execute the plan, if it passed its checks and the spec asks for it."""
    if not passed:
        return unverified_facts("the plan failed its checks"), None
    if not spec.verify.execute:
        return unverified_facts("--no-execute, or execute = false in the spec"), None
    trial = spec.verify
    proof = parframe.verify(
        plan, weights=weights, batch=trial.batch, sequence=trial.sequence, seed=trial.seed
    )
    return proof_facts(proof, plan.graph, weights_text(weights, trial.seed)), proof_error(
        proof, where
    )
