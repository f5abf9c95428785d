"""Roofline of a kernel, and cost of a tile of a matrix product."""

from __future__ import annotations

TILE_OVERHEAD = 16
"""Elements by which a tile is effectively larger in each direction, for the loads of its rows and
columns."""


def roofline(compute: float, memory: float) -> float:
    """Return the seconds of a kernel whose compute and memory seconds overlap."""
    return float((compute**3 + memory**3) ** (1 / 3))


def tile_cost(high: int, wide: int) -> float:
    """Return the effective number of elements of a tile, with the cost of its expert_loads."""
    return high * wide * (1 + TILE_OVERHEAD * (1 / high + 1 / wide))
