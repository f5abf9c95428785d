"""What a plan costs: memory, where a step's time goes, and how it serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from parframe.price.choose.bottlenecks import account
from parframe.price.choose.candidates import Candidate, Setting
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.estimate import Estimate
from parframe.price.serving.engines import POOLED

if TYPE_CHECKING:
    from rich.console import RenderableType


def facts_of(found: Candidate, setting: Setting, use: UseCase) -> dict[str, Any]:
    """All of an estimate, for JSON; times are [low, middle, high] of an 80 % interval."""
    points = []
    for at in found.points:
        told = account(found, at, use)
        points.append(
            {
                "requests": at.rows,
                "first_token_seconds": interval(at.first),
                "token_seconds": interval(at.token),
                "tokens_per_second": at.rate.value,
                "binds": told.binds,
                "stage_seconds": told.seconds,
                "cache_bytes": told.cache,
                "why": list(dict.fromkeys((*at.first.notes, *at.token.notes))),
            }
        )
    first = account(found, found.points[0], use)
    return {
        "plan": found.composite,
        "devices": setting.cluster.devices,
        "device": setting.cluster.machine.device.name,
        "machine": setting.cluster.machine.name,
        "engine": setting.engine.name,
        "prompt": use.prompt,
        "output": use.output,
        "weight_bytes": first.weights,
        "room_bytes": first.room,
        "most_requests": found.most,
        "limit": found.limit,
        "points": points,
    }


def interval(estimate: Estimate) -> tuple[float, float, float]:
    """The low end of an estimate's 80 % interval, its middle, and the high end."""
    low, high = estimate.interval()
    return low, estimate.value, high


def engine_in_words(name: str) -> str:
    """Under which engine figures hold."""
    return "under the middle of all engines" if name == POOLED else f"under {name}"


def draw(facts: Mapping[str, Any]) -> Iterable[RenderableType]:
    """A table of how the plan serves at every number in flight."""
    from rich.table import Table

    table = Table(
        title=f"{facts['plan']} on {facts['devices']} x {facts['device']} ({facts['machine']}), "
        f"{engine_in_words(facts['engine'])}; prompts of {facts['prompt']:g} tokens, answers of "
        f"{facts['output']:g}",
        caption="below each time its 80 % interval",
    )
    for column in ("in flight", "first token, ms", "token, ms", "tokens/s", "binds"):
        table.add_column(column, justify="right", overflow="fold")
    for at in facts["points"]:
        table.add_row(
            f"{at['requests']:.0f}",
            _range(at["first_token_seconds"]),
            _range(at["token_seconds"]),
            f"{at['tokens_per_second']:,.0f}",
            at["binds"],
        )
    yield table
    yield (
        f"weights take {facts['weight_bytes'] / 1e9:.1f} of {facts['room_bytes'] / 1e9:.1f} GB of "
        f"the fullest device; at most {facts['most_requests']:.0f} requests in flight "
        f"({facts['limit']})"
    )
    for why in dict.fromkeys(why for at in facts["points"] for why in at["why"]):
        yield f"note: {why}"


def _range(seconds: tuple[float, float, float]) -> str:
    low, middle, high = (value * 1e3 for value in seconds)
    return f"{middle:.1f}\n{low:.1f}-{high:.1f}"
