"""The ranked table of composites, the Pareto front as a picture, and reasons in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from parframe.price.choose.bottlenecks import explain, loss, reason
from parframe.price.choose.ranking import Choice, Ranked
from parframe.price.cost.estimate import Estimate, joined
from parframe.report.estimate import engine_in_words, interval

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 10
"""Rows of the table, unless all are asked for."""


def facts_of(choice: Choice) -> dict[str, Any]:
    """All of a choice, for JSON."""
    use = choice.use
    return {
        "devices": choice.setting.cluster.devices,
        "device": choice.setting.cluster.machine.device.name,
        "machine": choice.setting.cluster.machine.name,
        "engine": choice.setting.engine.name,
        "objective": choice.objective,
        "use_case": {
            "name": use.name, "prompt": use.prompt, "output": use.output,
            "concurrency": use.concurrency, "first_limit": use.first, "token_limit": use.token,
        },
        "best": choice.best.composite if choice.best else None,
        "ranked": [
            {
                "composite": one.composite,
                "requests": one.point.rows,
                "most_requests": one.candidate.most,
                "first_token_seconds": interval(one.point.first),
                "token_seconds": interval(one.point.token),
                "tokens_per_second": interval(one.point.rate),
                "tokens_per_second_per_device": one.point.per_device,
                "tokens_per_second_per_user": one.point.per_user,
                "device_seconds_per_1000_tokens": 1000 / one.point.per_device,
                "broken_limits": list(one.broken),
                "why": list(
                    joined(one.point.token.notes, one.point.rate.notes, one.point.first.notes)
                ),
            }
            for one in choice.ranked
        ],
        "front": [
            {
                "composite": one.composite, "requests": at.rows,
                "tokens_per_second_per_user": at.per_user,
                "tokens_per_second_per_device": at.per_device,
            }
            for one, at in choice.front()
        ],
        "reasons": {one.composite: reason(one, use) for one in choice.ranked[:SHOWN]},
        "excluded": dict(choice.excluded),
    }  # fmt: skip


def draw(choice: Choice, explained: Sequence[str] = ()) -> Iterable[RenderableType]:
    """The table, the front, the reasons of the best, and those asked for."""
    if choice.ranked:
        yield _table(choice)
        yield plot(choice)
    yield from _reasons(choice)
    for composite in explained:
        yield f"{composite}: {explain(choice, composite)}"


def _table(choice: Choice) -> RenderableType:
    from rich.table import Table

    use = choice.use
    table = Table(
        title=f"{use.title}: prompts of {use.prompt:g} tokens, answers of {use.output:g}, on "
        f"{choice.setting.place}, {engine_in_words(choice.setting.engine.name)}",
        caption="first, token: to the first token, and of later ones; below each figure its 80 % "
        "interval; * breaks a limit",
    )
    for column in ("", "composite"):
        table.add_column(column, overflow="fold")
    for column in ("in flight", "first, ms", "token, ms", "tokens/s", "per GPU"):
        table.add_column(column, justify="right", overflow="fold")
    for place, one in enumerate(choice.ranked[:SHOWN], 1):
        at = one.point
        table.add_row(
            f"{place}{'*' if one.broken else ''}",
            one.composite,
            f"{at.rows:.0f}",
            _range(at.first, 1e3),
            _range(at.token, 1e3),
            _range(at.rate, 1),
            f"{at.per_device:.4g}",
        )
    return table


def _range(estimate: Estimate, factor: float) -> str:
    low, middle, high = (value * factor for value in interval(estimate))
    numbers = [f"{value:,.{_places(value)}f}" for value in (low, middle, high)]
    return f"{numbers[1]}\n{numbers[0]}-{numbers[2]}"


def _places(value: float) -> int:
    return 0 if value >= 100 else 1


def _reasons(choice: Choice) -> Iterable[RenderableType]:
    for one in choice.ranked[:3]:
        yield f"{one.composite}: {reason(one, choice.use)}"
    if len(choice.ranked) > 1:
        best, second = choice.ranked[:2]
        yield f"{second.composite} against {best.composite}: {loss(best, second, choice.use)}"
    if choice.ranked:
        at = choice.ranked[0].point
        for why in joined(at.token.notes, at.rate.notes, at.first.notes):
            yield f"note: {why}"
    grouped: dict[str, list[str]] = {}
    for composite, why in choice.excluded.items():
        grouped.setdefault(why, []).append(composite)
    for why, several in grouped.items():
        more = f" and {len(several) - 4} more" if len(several) > 4 else ""
        yield f"excluded: {', '.join(several[:4])}{more}: {why}"


def plot(choice: Choice, width: int = 64, height: int = 14) -> RenderableType:
    """The Pareto front in characters: tokens a second of a user, and of a device."""
    from rich.panel import Panel
    from rich.text import Text

    front = choice.front()
    every = [at for one in choice.ranked for at in one.candidate.points]
    right = max(at.per_user for at in every)
    top = max(at.per_device for at in every)
    cells = [[" "] * width for _ in range(height)]

    def put(user: float, device: float, mark: str) -> None:
        column = min(width - 1, int(user / right * (width - 1)))
        row = height - 1 - min(height - 1, int(device / top * (height - 1)))
        cells[row][column] = mark

    for at in every:
        put(at.per_user, at.per_device, "·")
    names: dict[str, str] = {}
    for one, at in front:
        letter = names.setdefault(one.composite, chr(ord("a") + len(names) % 26))
        put(at.per_user, at.per_device, letter)
    lines = "\n".join("".join(row) for row in cells)
    key = "  ".join(f"{letter} {name}" for name, letter in names.items())
    return Panel(
        Text(f"{lines}\n{'-' * width}\n0 to {right:.4g} tokens/s of a user\n{key}"),
        title=f"Pareto front: up to {top:.4g} tokens/s of a GPU",
        expand=False,
    )


def svg(choice: Choice, width: int = 720, height: int = 440) -> str:
    """The Pareto front as a drawing: a standalone SVG."""
    from xml.sax.saxutils import escape

    front = choice.front()
    every = [(one, at) for one in choice.ranked for at in one.candidate.points]
    right = max(at.per_user for _, at in every) * 1.05
    top = max(at.per_device for _, at in every) * 1.05
    margin = 60

    def place(user: float, device: float) -> tuple[float, float]:
        x = margin + user / right * (width - 2 * margin)
        return x, height - margin - device / top * (height - 2 * margin)

    def dot(one: Ranked, user: float, device: float, color: str, radius: int) -> str:
        x, y = place(user, device)
        title = f"{one.composite}: {user:.4g} tokens/s of a user, {device:.4g} of a GPU"
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}">'
            f"<title>{escape(title)}</title></circle>"
        )

    line = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (place(at.per_user, at.per_device) for _, at in front)
    )
    labels = []
    seen: set[str] = set()
    for one, at in front:
        if one.composite not in seen:
            seen.add(one.composite)
            x, y = place(at.per_user, at.per_device)
            labels.append(f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{escape(one.composite)}</text>')
    left, low = margin, height - margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left},{margin} V{low} H{width - margin}" fill="none" stroke="black"/>',
        *(dot(one, at.per_user, at.per_device, "#bbbbbb", 2) for one, at in every),
        f'<polyline points="{line}" fill="none" stroke="#1f77b4"/>',
        *(dot(one, at.per_user, at.per_device, "#1f77b4", 4) for one, at in front),
        *labels,
        f'<text x="{width / 2}" y="{height - 18}" text-anchor="middle">'
        f"tokens/s of a user, to {right:.4g}</text>",
        f'<text x="18" y="{height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 18 {height / 2})">tokens/s of a GPU, to {top:.4g}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
