"""`parframe choose`: composites of a model ranked for given devices, with explanations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parframe.atomic_files import write_text
from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import (
    deployment_options,
    find_model_source,
    find_setup,
    length_options,
)
from parframe.cli.progress_bars import show_count
from parframe.errors import ParframeError

if TYPE_CHECKING:
    from parframe.cli.deployment_options import ModelSource
    from parframe.price.choose.ranking import Choice


@answers("choose")
@click.argument("model")
@deployment_options
@click.option(
    "--use-case",
    default="chat",
    show_default=True,
    metavar="NAME",
    help="Use case with lengths, concurrency and limits: chat, batch, recommend, sentiment, voice.",
)
@click.option(
    "--objective",
    type=click.Choice(("throughput", "latency", "cost")),
    default="throughput",
    show_default=True,
    help="Rank by output tok/s under the limits, by latency, or by device-seconds per token.",
)
@length_options
@click.option(
    "--concurrency", type=click.FloatRange(1), help="Requests in flight (default: the use case's)."
)
@click.option(
    "--max-ttft", type=float, metavar="MS", help="Limit of TTFT (default: the use case's)."
)
@click.option(
    "--max-tpot", type=float, metavar="MS", help="Limit of TPOT (default: the use case's)."
)
@click.option(
    "--strategies",
    default="PP,EP,DP,TP",
    show_default=True,
    metavar="CODES",
    help="Codes of the strategies to combine, also of plugins, separated by commas.",
)
@click.option(
    "--explain", multiple=True, metavar="COMPOSITE", help="Explain a composite's rank. Repeatable."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="File to write the spec of the best composite to.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="SVG",
    help="File to draw the Pareto front to.",
)
def command(
    model: str,
    use_case: str,
    objective: Any,
    prompt_tokens: float | None,
    output_tokens: float | None,
    concurrency: float | None,
    max_ttft: float | None,
    max_tpot: float | None,
    strategies: str,
    explain: tuple[str, ...],
    output: Path | None,
    plot: Path | None,
    **deployment: Any,
) -> Answer:
    """Rank every composite of a model for a number of devices.

    MODEL is a name such as llama-3-70b, a Hugging Face folder, a config.json or a graph.
    """
    from parframe.price.choose.ranking import rank_composites
    from parframe.price.choose.use_cases import find_use_case
    from parframe.price.work.compressed.strategy_work import (
        composite_work_reader,
        usable_strategies,
    )
    from parframe.report.choice import choice_facts, draw_choice
    from parframe.report.pareto import front_as_svg

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ParframeError(
            "usage", f"--plot {plot}", "is not an SVG file", "use a file name that ends in .svg"
        )
    source = find_model_source(model)
    setup = find_setup(source, **deployment)
    use = find_use_case(use_case).override(
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        concurrency=concurrency,
        max_ttft=None if max_ttft is None else max_ttft / 1e3,
        max_tpot=None if max_tpot is None else max_tpot / 1e3,
    )
    codes = [code.strip().upper() for code in strategies.split(",") if code.strip()]
    codes = usable_strategies(source.graph, codes)
    work = composite_work_reader(source.graph, codes)
    with show_count("estimating composites") as progress:
        choice = rank_composites(work, setup, use, codes, objective, progress)
    error = _failure(choice, work, codes)
    if error is None and choice.best is not None and output is not None:
        _write_spec(output, source, choice.best.composite, setup.cluster.devices)
    if plot is not None and choice.ranked:
        write_text(plot, front_as_svg(choice))
    picture = partial(draw_choice, choice, _find_composites(choice, explain))
    return Answer(choice_facts(choice), picture, error)


def _find_composites(choice: Choice, names: tuple[str, ...]) -> list[str]:
    """Return the composites of a choice that names refer to, in the choice's spelling."""
    from parframe.mesh import composite_degrees

    known = {
        frozenset(composite_degrees(name).items()): name
        for name in (*(ranked.composite for ranked in choice.ranked), *choice.excluded)
    }
    composites = []
    for name in names:
        wanted = frozenset(item for item in composite_degrees(name).items() if item[1] > 1)
        if wanted not in known:
            raise ParframeError(
                "choice",
                f"composite {name}",
                f"is not a composite of {choice.setup.cluster.devices} devices and these "
                "strategies",
                "use a composite whose degrees multiply to the number of devices",
            )
        composites.append(known[wanted])
    return composites


def _failure(choice: Choice, work: Callable[[str], Any], codes: list[str]) -> ParframeError | None:
    """Return the error of a choice without a best composite."""
    from parframe.price.choose.ranking import find_larger_cluster

    where = choice.setup.cluster_label
    if not choice.ranked:
        why = next(iter(choice.excluded.values()), "there is no composite")
        larger = find_larger_cluster(work, choice.setup, choice.use, codes)
        hint = "use a smaller weight dtype, shorter sequences or larger devices"
        if larger:
            nodes = _whole_nodes(larger[0], choice.setup.cluster.machine.per_node)
            hint = f"use {larger[0]} devices{nodes}, such as {larger[1]}"
        return ParframeError("choice", where, f"no composite fits: {why}", hint)
    if choice.best is None:
        nearest = choice.ranked[0]
        return ParframeError(
            "choice",
            where,
            f"no composite meets the limits; the nearest is {nearest.composite}: "
            f"{'; '.join(nearest.violations)}",
            "raise the limits, or use more or faster devices",
        )
    return None


def _whole_nodes(devices: int, per_node: int) -> str:
    """Return the devices of as many whole nodes, if several nodes are needed and not all full."""
    nodes = -(-devices // per_node)
    whole = nodes > 1 and devices % per_node
    return f" ({nodes * per_node} in {nodes} whole nodes)" if whole else ""


def _write_spec(output: Path, model: ModelSource, composite: str, devices: int) -> None:
    """Write the best composite as a spec, and next to it the configuration of a shipped model."""
    import json

    source = model.path
    if source is None:
        source = output.with_name(f"{model.key}.json")
        write_text(source, json.dumps(model.config, indent=2) + "\n")
    path = source.absolute()
    try:
        shown = path.relative_to(output.absolute().parent).as_posix()
    except ValueError:
        shown = path.as_posix()
    lines = (f"model = {json.dumps(shown)}", f"parallel = {json.dumps(composite)}",
             f"devices = {devices}")  # fmt: skip
    write_text(output, "\n".join(lines) + "\n")
