"""`parframe choose`: which composite to use on which devices, and why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parframe.atomic_files import write_text
from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import deploying_options, model_named, setting_of
from parframe.cli.progress import counting
from parframe.errors import ParframeError

if TYPE_CHECKING:
    from parframe.cli.deployment_options import Named
    from parframe.price.choose.candidates import Setting
    from parframe.price.choose.ranking import Choice
    from parframe.price.choose.use_cases import UseCase


@answers("choose")
@click.argument("model")
@deploying_options
@click.option(
    "--use-case",
    default="chat",
    show_default=True,
    metavar="NAME",
    help="chat, batch, recommend, sentiment or voice: lengths, requests in flight and limits.",
)
@click.option(
    "--objective",
    type=click.Choice(("throughput", "latency", "cost")),
    default="throughput",
    show_default=True,
)
@click.option("--prompt", type=click.FloatRange(1), help="Tokens of a prompt.")
@click.option("--output-tokens", "answer", type=click.FloatRange(1), help="Tokens of an answer.")
@click.option("--concurrency", type=click.FloatRange(1), help="Requests in flight.")
@click.option("--max-first", type=float, metavar="MS", help="Limit of the time to first token.")
@click.option("--max-token", type=float, metavar="MS", help="Limit of the time per token.")
@click.option(
    "--strategies", default="PP,EP,DP,TP", show_default=True, help="Codes, those of plugins too."
)
@click.option("--explain", multiple=True, metavar="COMPOSITE", help="Tell of one why; repeatable.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the winner's spec.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the Pareto front as SVG.")
def command(
    model: str,
    use_case: str,
    objective: Any,
    prompt: float | None,
    answer: float | None,
    concurrency: float | None,
    max_first: float | None,
    max_token: float | None,
    strategies: str,
    explain: tuple[str, ...],
    output: Path | None,
    plot: Path | None,
    **deploying: Any,
) -> Answer:
    """Rank every composite of a model for a number of devices.

    MODEL is a name such as llama-3-70b, a Hugging Face folder, a config.json or a graph.
    """
    from parframe.price.choose import use_cases
    from parframe.price.choose.public_api import overridden
    from parframe.price.choose.ranking import choose
    from parframe.price.work.compressed.strategy_work import (
        composite_work_reader,
        usable_strategies,
    )
    from parframe.report.choice import draw, facts_of, svg

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ParframeError(
            "usage", f"--plot {plot}", "is no name of an SVG file", "give a name that ends in .svg"
        )
    named = model_named(model)
    setting = setting_of(named, **deploying)
    use = overridden(
        use_cases.use_case(use_case),
        prompt=prompt,
        output=answer,
        concurrency=concurrency,
        first=None if max_first is None else max_first / 1e3,
        token=None if max_token is None else max_token / 1e3,
    )
    codes = [code.strip().upper() for code in strategies.split(",") if code.strip()]
    codes = usable_strategies(named.graph, codes)
    work = composite_work_reader(named.graph, codes)
    with counting("pricing composites") as told:
        found = choose(work, setting, use, codes, objective, told)
    error = _failure(found, work, setting, use, codes)
    if error is None and found.best is not None and output is not None:
        _write_spec(output, named, found.best.composite, setting.cluster.devices)
    if plot is not None and found.ranked:
        write_text(plot, svg(found))
    return Answer(facts_of(found), partial(draw, found, _legal(found, explain)), error)


def _legal(found: Choice, explained: tuple[str, ...]) -> list[str]:
    """The composites to explain, as they are written here."""
    from parframe.mesh import composite_degrees

    known = {
        frozenset(composite_degrees(name).items()): name
        for name in (*(one.composite for one in found.ranked), *found.excluded)
    }
    names = []
    for name in explained:
        wanted = frozenset(item for item in composite_degrees(name).items() if item[1] > 1)
        if wanted not in known:
            raise ParframeError(
                "choice",
                f"composite {name}",
                f"is not one of {found.setting.cluster.devices} devices by these strategies",
                "give one whose degrees multiply to the number of devices",
            )
        names.append(known[wanted])
    return names


def _failure(
    found: Choice, work: Callable[[str], Any], setting: Setting, use: UseCase, codes: list[str]
) -> ParframeError | None:
    """What is wrong if nothing can be chosen."""
    from parframe.price.choose.ranking import fewest_devices

    where = setting.place
    if not found.ranked:
        why = next(iter(found.excluded.values()), "no composite")
        larger = fewest_devices(work, setting, use, codes)
        hint = (
            f"use {larger[0]} devices, such as {larger[1]}{_whole(larger[0], setting)}"
            if larger
            else "no larger number does either; use narrower weights, shorter sequences or larger "
            "devices"
        )
        return ParframeError("choice", where, f"no composite fits: {why}", hint)
    if found.best is None:
        first = found.ranked[0]
        return ParframeError(
            "choice",
            where,
            f"no composite keeps the limits; {first.composite} comes nearest: "
            f"{'; '.join(first.broken)}",
            "allow more time, or use more or faster devices",
        )
    return None


def _whole(devices: int, setting: Setting) -> str:
    """How many devices of whole nodes that is, if it is more than one and no whole ones."""
    node = setting.cluster.machine.per_node
    nodes = -(-devices // node)
    return f" ({nodes} whole nodes have {nodes * node})" if nodes > 1 and devices % node else ""


def _write_spec(output: Path, named: Named, composite: str, devices: int) -> None:
    """Write the winner as a spec, and beside it the configuration of a model that ships."""
    import json

    source = named.path
    if source is None:
        source = output.with_name(f"{named.key}.json")
        write_text(source, json.dumps(named.config, indent=2) + "\n")
    relative = source.absolute()
    try:
        shown = relative.relative_to(output.absolute().parent).as_posix()
    except ValueError:
        shown = relative.as_posix()
    lines = (f"model = {json.dumps(shown)}", f"parallel = {json.dumps(composite)}",
             f"devices = {devices}")  # fmt: skip
    write_text(output, "\n".join(lines) + "\n")
