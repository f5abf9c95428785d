"""`parframe coverage`: surveys the models of transformers that load and are verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich.console import RenderableType

from parframe.atomic_files import write_text
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import Amount
from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import parse_composite
from parframe.report.formatting import counted
from parframe.report.screen import BLANK, heading, table

if TYPE_CHECKING:
    from parframe.coverage import Limits, Outcome

_COUNT = click.IntRange(1)


@answers("coverage")
@click.option(
    "--only", multiple=True, metavar="TYPE", help="Model type (default: all); may be repeated."
)
@click.option("--composites", metavar="LIST", help="Composites to partition with, such as TP2,PP2.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("coverage.jsonl"),
    show_default=True,
    help="File of results; types in it are not examined again.",
)
@click.option("--fresh", is_flag=True, help="Examine types again that the file of results has.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Markdown page to write (default: none)."
)
@click.option("--workers", type=_COUNT, help="Concurrent processes (default: number of cores).")
@click.option("--seconds", type=_COUNT, help="Time limit of one type, in seconds.")
@click.option("--memory", type=Amount(), help="Address space of a process, such as 12GiB.")
def command(
    only: tuple[str, ...],
    composites: str | None,
    results: Path,
    fresh: bool,
    output: Path | None,
    workers: int | None,
    seconds: int | None,
    memory: int | None,
) -> Answer:
    """Survey the causal language models that load and are verified.

    For each model type of transformers, a small model with random weights is loaded, compared with
    the output of transformers, partitioned, checked and verified, in a process of its own.
    """
    from parframe.coverage import COMPOSITES, Limits, render_page

    given = {"workers": workers, "seconds": seconds, "memory": memory}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    chosen = _composites(composites) if composites is not None else COMPOSITES
    found = _surveyed(_types(only), chosen, results, fresh, limits)
    if output is not None:
        write_text(output, render_page(found))
    facts = {"totals": _figures(found), "types": [attrs.asdict(outcome) for outcome in found]}
    return Answer(facts, partial(_draw, found), _defect(found))


def _types(only: Sequence[str]) -> list[str]:
    from parframe.coverage.reference_model import model_types

    known = model_types()
    for name in only:
        if name not in known:
            raise ParframeError(
                "usage",
                "--only",
                f"{name!r} is not a type of causal language model{did_you_mean(name, known)}",
                "give a `model_type` of transformers",
            )
    return [name for name in known if not only or name in only]


def _composites(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for composite in found:
        parse_composite(composite)
    return found


def _surveyed(
    types: Sequence[str], composites: Sequence[str], results: Path, fresh: bool, limits: Limits
) -> list[Outcome]:
    """Return the outcome of each type, from the file of results or examined now."""
    from parframe.coverage import survey
    from parframe.coverage.outcome import add_outcome, read_outcomes

    known = {} if fresh else read_outcomes(results)
    if fresh:
        results.unlink(missing_ok=True)
    found = {name: known[name] for name in types if name in known}
    with steps(len(types)) as step:
        step(f"{len(found)} of {len(types)} types known")

        def record(outcome: Outcome) -> None:
            found[outcome.model_type] = outcome
            add_outcome(results, outcome)
            step(f"{outcome.model_type} {outcome.loading.state}")

        survey([name for name in types if name not in found], composites, limits, record)
    return [found[name] for name in types]


def _figures(found: Sequence[Outcome]) -> dict[str, Any]:
    from parframe.coverage import compute_totals

    totals = compute_totals(found)
    shares = {"share_loaded": totals.share_loaded, "share_verified": totals.share_verified}
    return {**attrs.asdict(totals), **shares}


def _defect(found: Sequence[Outcome]) -> ParframeError | None:
    """Return the error of a survey that found wrong numbers or a traceback."""
    defects = [line for outcome in found for line in outcome.defects]
    if not defects:
        return None
    more = f", and {counted(len(defects) - 1, 'more defect')}" if len(defects) > 1 else ""
    return ParframeError(
        "verify", "coverage", f"{defects[0]}{more}", "report it: it is a bug in parframe"
    )


def _draw(found: Sequence[Outcome]) -> Iterator[RenderableType]:
    sums = _figures(found)
    yield heading("Coverage", f"{counted(sums['types'], 'type')}, {sums['countable']} countable")
    rows = [
        ("loaded", str(sums["loaded"]), f"{sums['share_loaded']:.1%}"),
        ("verified under TP2, PP2, DP2", str(sums["verified"]), f"{sums['share_verified']:.1%}"),
        ("wrong, tracebacks", str(sums["defects"]), ""),
    ]
    yield table(("", "types", "share"), rows, right=("types", "share"))
    yield BLANK
    yield heading("Types")
    yield table(("type", "model", "verified", "not verified, with the reason"), map(_row, found))


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    verified = [name for name, verdict in outcome.plans.items() if verdict.state == "verified"]
    rest = [
        f"{name} {verdict.state}: {verdict.reason}"
        for name, verdict in outcome.plans.items()
        if verdict.state != "verified"
    ]
    reason = outcome.loading.reason or "; ".join(rest)
    return outcome.model_type, outcome.loading.state, " ".join(verified), reason
