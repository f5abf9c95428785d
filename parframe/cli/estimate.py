"""`parframe estimate`: what one plan costs on given devices, before anything is launched."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import deploying_options, model_named, setting_of


@answers("estimate")
@click.argument("spec", type=click.Path(path_type=Path))
@deploying_options
@click.option("--use-case", default="chat", show_default=True, metavar="NAME")
@click.option("--prompt", type=click.FloatRange(1), help="Tokens of a prompt.")
@click.option("--output-tokens", "answer", type=click.FloatRange(1), help="Tokens of an answer.")
def command(
    spec: Path, use_case: str, prompt: float | None, answer: float | None, **deploying: Any
) -> Answer:
    """Price a spec: memory, time to the first token, time per token, tokens per second.

    SPEC is a spec that names its model.
    """
    from parframe.cli.source import model_of
    from parframe.price.choose.public_api import overridden, priced
    from parframe.price.choose.use_cases import use_case as find_use_case
    from parframe.price.work.compressed.work_from_composite import work_from_composite
    from parframe.report.estimate import draw, facts_of
    from parframe.spec import Spec

    read = Spec.read(spec)
    named = model_named(model_of(read))
    setting = setting_of(named, **deploying)
    use = overridden(find_use_case(use_case), prompt=prompt, output=answer)
    found = priced(work_from_composite(named.graph, read), setting, use, read.parallel or str(spec))
    facts = facts_of(found, setting, use)
    return Answer(facts, partial(draw, facts))
