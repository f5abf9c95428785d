"""Mesh of a plan, and the dimensions that are split over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.dims import Dimensions
from parframe.mesh import Mesh, rank_grid
from parframe.partitioning.cuts import axis_groups, find_cuts
from parframe.plan import Plan
from parframe.report.formatting import counted, runs
from parframe.report.screen import BLANK, heading, table
from parframe.sizes import format_size
from parframe.strategy import STAGES, Placing

_MOST_ROWS = 16
_MOST_STAGES = 4


def mesh_facts(mesh: Mesh, placing: Placing | None = None) -> dict[str, Any]:
    """Return the axes of a mesh, its number of devices, and its grid of ranks as rows.

    With a ``placing``, also the groups of the dimensions that are split over several axes.
    """
    return {
        "axes": dict(mesh.axes),
        "shares": {name: list(shares) for name, shares in mesh.submeshes[0].shares},
        "stages": [dict(one.axes) for one in mesh.submeshes] if len(mesh.submeshes) > 1 else [],
        "devices": mesh.size,
        "grid": [list(row) for row in rank_grid(mesh)],
        "views": [] if placing is None else _views(placing),
    }


def _views(placing: Placing) -> list[dict[str, Any]]:
    """Return the names that are split over several axes, and the ranks of every group.

    The ranks of a group are in the order of their parts.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for split in placing.splits if len(placing.mesh.submeshes) == 1 else ():
        axes = tuple(axis for group in axis_groups(split, placing) for axis in group)
        if len(axes) > 1:
            found.setdefault(axes, []).append(split.name)
    return [
        {
            "names": names,
            "axes": list(axes),
            "groups": [list(group) for group in placing.mesh.groups(axes)],
        }
        for axes, names in found.items()
    ]


def draw_mesh(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Draw the grid of ranks; of a large one, the first rows and the last."""
    shares = {name: f" ({_ratio(given)})" for name, given in facts["shares"].items()}
    axes = _axes(facts["axes"], shares)
    if facts["stages"]:
        stages = "; ".join(_axes(inner, shares) for inner in facts["stages"])
        axes = f"{_axes(dict([next(iter(facts['axes'].items()))]), shares)} ({stages})"
    yield heading("Mesh", f"{axes or 'no axes'}: {counted(facts['devices'], 'device')}")
    head, *rows = facts["grid"]
    yield table(head, abridged(rows, len(head)))
    for view in facts["views"]:
        over = " x ".join(view["axes"])
        yield BLANK
        yield heading("View", f"{', '.join(view['names'])} over {over}")
        rows = [[str(number), _ranks(group)] for number, group in enumerate(view["groups"])]
        yield table(("group", f"ranks along {over}"), abridged(rows, 2))


def _ranks(group: Sequence[int], most: int = 16) -> str:
    shown = [str(rank) for rank in group]
    return " ".join(shown if len(shown) <= most else [*shown[: most - 2], "...", shown[-1]])


def _axes(degrees: Mapping[str, int], shares: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={degree}{shares.get(name, '')}" for name, degree in degrees.items())


def abridged(rows: Sequence[Sequence[str]], width: int, most: int = _MOST_ROWS) -> list[Any]:
    """Leave out the middle rows of a long table."""
    if len(rows) <= most:
        return list(rows)
    left_out = len(rows) - most + 1
    gap = [f"... {left_out:,} more rows ..."] if width == 1 else ["..."] * (width - 1)
    gap = gap if width == 1 else [*gap, f"({left_out:,} more rows)"]
    return [*rows[: most - 2], gap, rows[-1]]


def split_facts(
    placing: Placing, dimensions: Dimensions, layers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the axes over which each name is split, and the sizes of its parts.

    Parameters
    ----------
    placing, dimensions
        The mesh with the axes of every name, and the dimensions of the model.
    layers
        The layers of each pipeline stage, such as ``["0-1", "2-3"]``.

    Returns
    -------
    list of dict
        One for each cut; ``stages`` are those that it applies to, if stages have different meshes.
    """
    meshes = placing.mesh.submeshes
    found = []
    for mesh in dict.fromkeys(meshes):
        stages = [stage for stage, one in enumerate(meshes) if one == mesh and len(meshes) > 1]
        for cut in find_cuts(dimensions, placing.within(mesh)):
            found.append(
                {
                    "axes": list(cut.axes),
                    "stages": stages,
                    "name": _role(cut.chain, dimensions),
                    "dimensions": dict(zip(cut.chain, map(format_size, cut.sizes), strict=True)),
                    "parts": cut.degree,
                    "each": {dim: _each(cut, dim) for dim in cut.chain},
                }
            )
    total = dimensions.dimensions.get(STAGES)
    for axis in placing.axes(STAGES):
        degree = placing.mesh.degree(axis)
        if degree > 1:
            sizes = {STAGES: format_size(total.size)} if total else {}
            found.insert(
                0,
                {
                    "axes": [axis], "stages": [], "name": STAGES, "dimensions": sizes,
                    "parts": degree, "each": {STAGES: list(layers)} if layers else {},
                },
            )  # fmt: skip
    return found


def draw_splits(facts: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Draw the table of what is split over which axis."""
    facts = list(facts)
    if not facts:
        return
    yield heading("Split")
    yield table(
        ("axis", "dimensions", "parts", "each device"),
        ([_over(f), _sizes(f), str(f["parts"]), _shares(f)] for f in facts),
        right=("parts",),
    )


def placing_facts(plan: Plan) -> list[dict[str, Any]]:
    """Return the mesh axes that the strategies give to each name."""
    return [{"name": split.name, "axes": list(split.axes)} for split in plan.placing.splits]


def draw_placing(facts: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Draw the table of names and their mesh axes."""
    facts = list(facts)
    if facts:
        yield heading("Names on axes")
        yield table(("name", "axes"), ([f["name"], ", ".join(f["axes"])] for f in facts))


def _role(chain: tuple[str, ...], dimensions: Dimensions) -> str:
    return dimensions.dimensions[chain[0]].role or chain[0]


def _each(cut: Any, dim: str) -> list[str]:
    """Return the lengths of the parts of a dimension, the largest first."""
    lengths = {piece[dim].length for group in cut.groups for piece in group}
    if all(isinstance(length, int) for length in lengths):
        return [str(length) for length in sorted(lengths, reverse=True)]
    degree, outer = cut.degree, cut.outer
    while outer is not None:
        degree, outer = degree * outer.degree, outer.outer
    size = cut.sizes[cut.chain.index(dim)]
    part = f"/{degree}" if len(set(cut.shares)) == 1 else f" {_ratio(cut.shares)}"
    return [f"{format_size(size)}{part}"]


def _ratio(shares: Iterable[int]) -> str:
    return ":".join(map(str, shares))


def _over(facts: Mapping[str, Any]) -> str:
    stages = f" in stage {runs(facts['stages'])}" if facts["stages"] else ""
    return ", ".join(facts["axes"]) + stages


def _sizes(facts: Mapping[str, Any]) -> str:
    return " x ".join(
        name if name == size else f"{name} {size}" for name, size in facts["dimensions"].items()
    )


def _shares(facts: Mapping[str, Any]) -> str:
    if facts["name"] == STAGES:
        return _stage_layers(facts["each"].get(STAGES, ()))
    return " x ".join(_share(dim, lengths) for dim, lengths in facts["each"].items())


def _stage_layers(layers: Sequence[str]) -> str:
    """Return the layers of each stage, as in ``layers 0-1 | 2-3``."""
    if not layers:
        return "one stage each"
    shown = [*layers[:2], "...", layers[-1]] if len(layers) > _MOST_STAGES else layers
    return f"{STAGES} {' | '.join(shown)}"


def _share(dim: str, lengths: Sequence[str]) -> str:
    if lengths[0].startswith(dim):
        return lengths[0]
    return f"{dim} {' or '.join(lengths) if len(lengths) < 4 else f'{lengths[-1]}-{lengths[0]}'}"
