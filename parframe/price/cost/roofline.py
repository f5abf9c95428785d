"""What the times of all operators share: the bend of the roofline and the price of a tile."""

from __future__ import annotations

TILE_TURN = 16
"""Elements by which a tile is larger in effect, each way: what is loaded for its rows and columns
costs as much as so many more of the other."""


def roofline(compute: float, memory: float) -> float:
    """Return the time of a kernel that computes and moves data at once."""
    return float((compute**3 + memory**3) ** (1 / 3))


def tile_cost(high: int, wide: int) -> float:
    """Return the elements of a tile, with what its loads cost beside its products."""
    return high * wide * (1 + TILE_TURN * (1 / high + 1 / wide))
