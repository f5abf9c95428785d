"""Pareto front of tok/s/user and tok/s/GPU, as characters and as SVG."""

from __future__ import annotations

from rich.console import Group, RenderableType

from parframe.price.choose.ranking import Choice, RankedComposite
from parframe.report.screen import BLANK, heading, lines
from parframe.report.serving_figures import number


def plot_front(choice: Choice, width: int = 64, height: int = 14) -> RenderableType:
    """Return the Pareto front in characters."""
    front = choice.pareto_front()
    points = [point for ranked in choice.ranked for point in ranked.candidate.points]
    right = max(point.rate_per_user for point in points)
    top = max(point.rate_per_device for point in points)
    cells = [[" "] * width for _ in range(height)]

    def put(x: float, y: float, mark: str) -> None:
        column = min(width - 1, int(x / right * (width - 1)))
        row = height - 1 - min(height - 1, int(y / top * (height - 1)))
        cells[row][column] = mark

    for point in points:
        put(point.rate_per_user, point.rate_per_device, "·")
    marks: dict[str, str] = {}
    for ranked, point in front:
        mark = marks.setdefault(ranked.composite, chr(ord("a") + len(marks) % 26))
        put(point.rate_per_user, point.rate_per_device, mark)
    axis = f"0 to {number(right)} tok/s/user"
    legend = ", ".join(f"{mark} {name}" for name, mark in marks.items())
    return Group(
        heading("Pareto front", f"y axis: 0 to {number(top)} tok/s/GPU"),
        lines(["|" + "".join(row).rstrip() for row in cells]),
        lines([f"+{'-' * width}", axis.rjust(width + 1)]),
        lines([legend]),
        BLANK,
    )


def front_as_svg(choice: Choice, width: int = 720, height: int = 440) -> str:
    """Return the Pareto front as a standalone SVG."""
    from xml.sax.saxutils import escape

    front = choice.pareto_front()
    points = [(ranked, point) for ranked in choice.ranked for point in ranked.candidate.points]
    right = max(point.rate_per_user for _, point in points) * 1.05
    top = max(point.rate_per_device for _, point in points) * 1.05
    margin = 60

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            margin + x / right * (width - 2 * margin),
            height - margin - y / top * (height - 2 * margin),
        )

    def dot(ranked: RankedComposite, x: float, y: float, color: str, radius: int) -> str:
        column, row = place(x, y)
        title = f"{ranked.composite}: {number(x)} tok/s/user, {number(y)} tok/s/GPU"
        return (
            f'<circle cx="{column:.1f}" cy="{row:.1f}" r="{radius}" fill="{color}">'
            f"<title>{escape(title)}</title></circle>"
        )

    places = [place(point.rate_per_user, point.rate_per_device) for _, point in front]
    polyline = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    labels: dict[str, str] = {}
    for (ranked, _), (x, y) in zip(front, places, strict=True):
        label = f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{escape(ranked.composite)}</text>'
        labels.setdefault(ranked.composite, label)
    left, bottom = margin, height - margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left},{margin} V{bottom} H{width - margin}" fill="none" stroke="black"/>',
        *(dot(one, p.rate_per_user, p.rate_per_device, "#bbbbbb", 2) for one, p in points),
        f'<polyline points="{polyline}" fill="none" stroke="#1f77b4"/>',
        *(dot(one, p.rate_per_user, p.rate_per_device, "#1f77b4", 4) for one, p in front),
        *labels.values(),
        f'<text x="{width / 2}" y="{height - 18}" text-anchor="middle">'
        f"tok/s/user, 0 to {number(right)}</text>",
        f'<text x="18" y="{height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 18 {height / 2})">tok/s/GPU, 0 to {number(top)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
