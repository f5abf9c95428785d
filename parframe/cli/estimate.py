"""`parframe estimate`: memory, latency and throughput of one plan on given devices."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import (
    deployment_options,
    find_model_source,
    find_setup,
    length_options,
)


@answers("estimate")
@click.argument("spec", type=click.Path(path_type=Path))
@deployment_options
@click.option(
    "--use-case",
    default="chat",
    show_default=True,
    metavar="NAME",
    help="Use case with lengths of prompts and outputs: chat, batch, recommend, sentiment, voice.",
)
@length_options
def command(
    spec: Path,
    use_case: str,
    prompt_tokens: float | None,
    output_tokens: float | None,
    **deployment: Any,
) -> Answer:
    """Estimate the memory, TTFT, TPOT and throughput of a spec.

    SPEC is a spec file that names its model.
    """
    from parframe.cli.source import model_of
    from parframe.price.choose.public_api import estimate_work
    from parframe.price.choose.use_cases import find_use_case
    from parframe.price.work.compressed.work_from_composite import work_from_composite
    from parframe.report.estimate import draw_estimate, estimate_facts
    from parframe.spec import Spec

    parsed = Spec.read(spec)
    model = find_model_source(model_of(parsed))
    setup = find_setup(model, **deployment)
    use = find_use_case(use_case).override(prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    work = work_from_composite(model.graph, parsed)
    candidate = estimate_work(work, setup, use, parsed.parallel or str(spec))
    facts = estimate_facts(candidate, setup, use)
    return Answer(facts, partial(draw_estimate, facts))
