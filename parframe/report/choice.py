"""Ranked composites as a table, with explanations, and as facts for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.price.choose.ranking import Choice, RankedComposite
from parframe.report.explanations import explain_bottleneck, explain_composite, explain_loss
from parframe.report.pareto import plot_front
from parframe.report.screen import BLANK, FirstThatFits, heading, lines, table
from parframe.report.serving_figures import (
    interval,
    interval_cell,
    latency_facts,
    number,
    point_notes,
    rate_facts,
    setup_facts,
    setup_label,
)

SHOWN = 10
"""Number of composites in the table."""

EXPLAINED = 3
"""Number of composites that are explained."""

NAMED = 4
"""Number of excluded composites that are named for each reason."""


def choice_facts(choice: Choice) -> dict[str, Any]:
    """Return a choice as facts for JSON; intervals are [low, median, high] of 80 %."""
    use = choice.use
    return {
        **setup_facts(choice.setup),
        "objective": choice.objective,
        "use_case": {
            "name": use.name,
            "prompt_tokens": use.prompt_tokens,
            "output_tokens": use.output_tokens,
            "concurrency": use.concurrency,
            "max_ttft_ms": None if use.max_ttft is None else use.max_ttft * 1e3,
            "max_tpot_ms": None if use.max_tpot is None else use.max_tpot * 1e3,
        },
        "best": choice.best.composite if choice.best else None,
        "ranked": [_ranked_facts(ranked) for ranked in choice.ranked],
        "pareto_front": [
            {"composite": ranked.composite, "concurrency": point.concurrency, **rate_facts(point)}
            for ranked, point in choice.pareto_front()
        ],
        "explanations": {
            ranked.composite: explain_bottleneck(ranked, use) for ranked in choice.ranked[:SHOWN]
        },
        "excluded": dict(choice.excluded),
    }


def _ranked_facts(ranked: RankedComposite) -> dict[str, Any]:
    point = ranked.point
    return {
        "composite": ranked.composite,
        **latency_facts(point),
        "max_concurrency": ranked.candidate.max_concurrency,
        "output_tokens_per_second": interval(point.output_rate),
        **rate_facts(point),
        "gpu_seconds_per_1000_tokens": 1000 / point.rate_per_device,
        "violated_limits": list(ranked.violations),
        "notes": point_notes(point),
    }


def draw_choice(choice: Choice, explained: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Draw the ranked composites, the Pareto front, and explanations of the best and of others."""
    if choice.ranked:
        yield from _draw_ranking(choice)
        yield BLANK
        yield plot_front(choice)
    yield from _draw_explanations(choice)
    for composite in explained:
        yield lines([f"{composite}: {explain_composite(choice, composite)}"])


def _draw_ranking(choice: Choice) -> Iterator[RenderableType]:
    use = choice.use
    yield heading(
        use.title,
        f"{use.prompt_tokens:g} prompt tokens, {use.output_tokens:g} output tokens, "
        f"{setup_label(setup_facts(choice.setup))}",
    )
    shown = [_ranked_facts(ranked) for ranked in choice.ranked[:SHOWN]]
    yield FirstThatFits(
        _ranking_table(shown, " "),
        _ranking_table(shown, "\n"),
        _ranking_table(shown, "\n", left_out=("tok/s/user",)),
        _ranking_table(shown, "\n", left_out=("tok/s/user", "tok/s/GPU")),
    )
    notes = ["intervals contain 80 % of outcomes"]
    if any(fact["violated_limits"] for fact in shown):
        notes.append("* violates a limit of the use case")
    if len(choice.ranked) > SHOWN:
        notes.append(f"{len(choice.ranked) - SHOWN} more composites: see --json")
    yield lines(["; ".join(notes)], "dim")


def _ranking_table(
    facts: Sequence[dict[str, Any]], separator: str, left_out: Sequence[str] = ()
) -> RenderableType:
    """Return the table; the separator is that of the words of a name, and before an interval."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "concurrency": lambda fact: f"{fact['concurrency']:,.0f}",
        "TTFT (ms)": lambda fact: interval_cell(fact["ttft_ms"], separator),
        "TPOT (ms)": lambda fact: interval_cell(fact["tpot_ms"], separator),
        "output tok/s": lambda fact: interval_cell(fact["output_tokens_per_second"], separator),
        "tok/s/user": lambda fact: number(fact["tokens_per_second_per_user"]),
        "tok/s/GPU": lambda fact: number(fact["tokens_per_second_per_gpu"]),
    }
    shown = {name: cell for name, cell in columns.items() if name not in left_out}
    rows = [
        (
            f"{rank}{'*' if fact['violated_limits'] else ''} {fact['composite']}",
            *(cell(fact) for cell in shown.values()),
        )
        for rank, fact in enumerate(facts, 1)
    ]
    names = [name.replace(" ", separator) for name in shown]
    return table(("composite", *names), rows, right=names, whole=("composite",))


def _draw_explanations(choice: Choice) -> Iterator[RenderableType]:
    texts = [
        f"{ranked.composite}: {explain_bottleneck(ranked, choice.use)}"
        for ranked in choice.ranked[:EXPLAINED]
    ]
    if len(choice.ranked) > 1:
        best, second = choice.ranked[:2]
        loss = explain_loss(best, second, choice.use)
        texts.append(f"{second.composite} compared with {best.composite}: {loss}")
    if choice.ranked:
        texts += [f"note: {note}" for note in point_notes(choice.ranked[0].point)]
    by_reason: dict[str, list[str]] = {}
    for composite, why in choice.excluded.items():
        by_reason.setdefault(why, []).append(composite)
    for why, composites in by_reason.items():
        more = f" and {len(composites) - NAMED} more" if len(composites) > NAMED else ""
        texts.append(f"excluded: {', '.join(composites[:NAMED])}{more}: {why}")
    yield from (lines([text]) for text in texts)
