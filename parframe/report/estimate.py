"""Estimate of one plan as a table over concurrencies, and as facts for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.price.choose.bottlenecks import break_down
from parframe.price.choose.candidates import Candidate, OperatingPoint
from parframe.price.choose.setup import ServingSetup
from parframe.price.choose.use_cases import UseCase
from parframe.report.formatting import gib
from parframe.report.screen import FirstThatFits, heading, lines, table
from parframe.report.serving_figures import (
    interval_cell,
    latency_facts,
    number,
    setup_facts,
    setup_label,
)


def estimate_facts(candidate: Candidate, setup: ServingSetup, use: UseCase) -> dict[str, Any]:
    """Return an estimate as facts for JSON; latencies are [low, median, high] of 80 %."""
    first = break_down(candidate, candidate.points[0], use)
    return {
        "plan": candidate.composite,
        **setup_facts(setup),
        "prompt_tokens": use.prompt_tokens,
        "output_tokens": use.output_tokens,
        "weight_bytes": first.weights,
        "memory_bytes": first.memory,
        "max_concurrency": candidate.max_concurrency,
        "limited_by": candidate.limited_by,
        "points": [_point_facts(candidate, point, use) for point in candidate.points],
    }


def _point_facts(candidate: Candidate, point: OperatingPoint, use: UseCase) -> dict[str, Any]:
    breakdown = break_down(candidate, point, use)
    return {
        **latency_facts(point),
        "output_tokens_per_second": point.output_rate.value,
        "bound_by": breakdown.bound_by,
        "stage_ms": {name: seconds * 1e3 for name, seconds in breakdown.seconds.items()},
        "kv_cache_bytes": breakdown.kv_cache,
        "notes": list(dict.fromkeys((*point.ttft.notes, *point.tpot.notes))),
    }


def draw_estimate(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Draw a row for every concurrency."""
    yield heading(
        facts["plan"],
        f"{facts['prompt_tokens']:g} prompt tokens, {facts['output_tokens']:g} output tokens, "
        f"{setup_label(facts)}",
    )
    yield FirstThatFits(_points_table(facts, " "), _points_table(facts, "\n"))
    yield lines(["intervals contain 80 % of outcomes"], "dim")
    yield lines(
        [
            f"weights {gib(facts['weight_bytes'])} of {gib(facts['memory_bytes'])} on the fullest "
            f"device; max concurrency {facts['max_concurrency']:,.0f} (limited by "
            f"{facts['limited_by']})"
        ]
    )
    for note in dict.fromkeys(note for point in facts["points"] for note in point["notes"]):
        yield lines([f"note: {note}"])


def _points_table(facts: Mapping[str, Any], separator: str) -> RenderableType:
    numbers = ("concurrency", "TTFT (ms)", "TPOT (ms)", "output tok/s")
    rows = [
        (
            f"{point['concurrency']:,.0f}",
            interval_cell(point["ttft_ms"], separator),
            interval_cell(point["tpot_ms"], separator),
            number(point["output_tokens_per_second"]),
            point["bound_by"],
        )
        for point in facts["points"]
    ]
    return table((*numbers, "bound by"), rows, right=numbers)
