"""The ranks of a mesh as the rows of a table."""

from itertools import product

from parframe.mesh.mesh import Mesh
from parframe.mesh.staged_mesh import StagedMesh

_LONGEST_RUN = 8


def rank_grid(mesh: Mesh, first: int = 0) -> tuple[tuple[str, ...], ...]:
    """Return the ranks of a mesh as the rows of a table, numbered from ``first``.

    A heading is followed by one row for each position on all axes but the last: the position along
    each, and the ranks along the last axis (long runs are shortened). The rows of a mesh whose
    stages differ are those of one stage after the other.

    Examples
    --------
    >>> for row in rank_grid(Mesh((("pp", 2), ("tp", 3)))):
    ...     print(*row, sep=" | ")
    pp | ranks along tp
    0 | 0 1 2
    1 | 3 4 5
    """
    if isinstance(mesh, StagedMesh):
        return _staged_grid(mesh, first)
    *outer, (last, degree) = mesh.axes or (("", 1),)
    heading = (*(name for name, _ in outer), f"ranks along {last}" if last else "ranks")
    positions = product(*(range(count) for _, count in outer))
    rows = (
        (*map(str, position), _run(first + row * degree, degree))
        for row, position in enumerate(positions)
    )
    return (heading, *rows)


def _staged_grid(mesh: StagedMesh, first: int) -> tuple[tuple[str, ...], ...]:
    grids = [
        rank_grid(submesh, first + start)
        for submesh, start in zip(mesh.submeshes, mesh.first_ranks, strict=True)
    ]
    rows = ((str(stage), *row) for stage, (_, *grid) in enumerate(grids) for row in grid)
    return ((mesh.stage_axis, *grids[0][0]), *rows)


def _run(first: int, length: int) -> str:
    ranks = [str(rank) for rank in range(first, first + length)]
    return " ".join(ranks if length <= _LONGEST_RUN else [*ranks[:3], "...", ranks[-1]])
