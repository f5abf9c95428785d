"""Devices whose pipeline stages are different grids: one mesh after the other."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import attrs

from parframe.errors import ParframeError
from parframe.mesh.mesh import Mesh, Shares


def _largest(mesh: "StagedMesh") -> tuple[tuple[str, int], ...]:
    """The stage axis, and every other one with the largest of its degrees."""
    largest: dict[str, int] = {}
    for one in mesh.submeshes:
        largest.update((name, max(degree, largest.get(name, 1))) for name, degree in one.axes)
    return ((mesh.axis, len(mesh.submeshes)), *largest.items())


@attrs.frozen
class StagedMesh(Mesh):
    """Meshes with the same axes but other degrees, each a pipeline stage.

    Ranks are numbered stage after stage. There are groups along axes within the stages, and along
    the stage axis together with all axes whose degrees differ; the stage axis must then be given
    first, so that a group has the ranks of the first stage before those of the second.

    Parameters
    ----------
    axis : str
        The stage axis.
    submeshes : tuple of Mesh
        The devices of each stage.

    Raises
    ------
    ParframeError
        Of kind `mesh`, for axes that are not legal, or not those of all stages.

    Examples
    --------
    >>> mesh = StagedMesh("pp", (Mesh((("tp", 4),)), Mesh((("tp", 2),))))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, ("tp",)), mesh.group(5, ("pp", "tp"))
    (6, {'pp': 1, 'tp': 1}, (4, 5), (0, 1, 2, 3, 4, 5))
    """

    axis: str
    submeshes: tuple[Mesh, ...] = attrs.field(converter=tuple[Mesh, ...])
    axes: tuple[tuple[str, int], ...] = attrs.field(
        init=False, repr=False, default=attrs.Factory(_largest, takes_self=True)
    )
    shares: Shares = attrs.field(init=False, repr=False, default=())

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        first = self.submeshes[0]
        if any((one.names, one.shares) != (first.names, first.shares) for one in self.submeshes):
            raise ParframeError(
                "mesh", str(self), "its stages have different axes", "give all stages the same"
            )

    def __str__(self) -> str:
        return f"{self.axis}={len(self.submeshes)} ({'; '.join(map(str, self.submeshes))})"

    @property
    def size(self) -> int:
        """The number of devices."""
        return sum(one.size for one in self.submeshes)

    @property
    def uneven(self) -> tuple[str, ...]:
        """The axes of which the degree differs from stage to stage."""
        return tuple(
            name
            for name in self.submeshes[0].names
            if len({one.degree(name) for one in self.submeshes}) > 1
        )

    @property
    def firsts(self) -> tuple[int, ...]:
        """The first rank of every stage."""
        return (0, *accumulate(one.size for one in self.submeshes[:-1]))

    def stage(self, rank: int) -> int:
        """Tell which stage a rank belongs to.

        Parameters
        ----------
        rank : int
            A rank of this mesh.

        Returns
        -------
        int
            The number of the stage.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such rank.
        """
        if not 0 <= rank < self.size:
            raise ParframeError(
                "mesh", f"rank {rank}", f"the mesh {self} has {self.size} ranks", self._way_out()
            )
        return max(stage for stage, first in enumerate(self.firsts) if first <= rank)

    def degree(self, axis: str) -> int:
        """Tell how many devices lie along an axis, if it is the same in all stages."""
        self._check_names((axis,))
        if axis in self.uneven:
            raise ParframeError(
                "mesh", f"axis {axis!r}", "has another degree in every stage", "ask its submeshes"
            )
        return dict(self.axes)[axis]

    def ratio(self, axes: Sequence[str]) -> tuple[int, ...]:
        """Tell in which ratio something is split over some axes, if it is so in all stages."""
        for axis in axes:
            self.degree(axis)
        return self.submeshes[0].ratio(axes)

    def coordinates(self, rank: int) -> dict[str, int]:
        """Tell where a rank lies: its stage, and its place there."""
        stage = self.stage(rank)
        place = self.submeshes[stage].coordinates(rank - self.firsts[stage])
        return {self.axis: stage, **place}

    def rank(self, coordinates: Mapping[str, int]) -> int:
        """Tell which rank lies at a place."""
        stage = coordinates.get(self.axis, -1)
        if not 0 <= stage < len(self.submeshes):
            raise ParframeError(
                "mesh",
                f"axis {self.axis!r}",
                f"the place {dict(coordinates)} has no position on it",
                f"give {self.axis} from 0 to {len(self.submeshes) - 1}",
            )
        place = {name: at for name, at in coordinates.items() if name != self.axis}
        return self.firsts[stage] + self.submeshes[stage].rank(place)

    def has_groups(self, axes: Sequence[str]) -> bool:
        """Tell whether the ranks fall into groups along some axes."""
        across = self.axis not in axes or (axes[0] == self.axis and set(self.uneven) <= set(axes))
        return super().has_groups(axes) and across

    def members(self, axes: Sequence[str], rank: int = 0) -> int:
        """Tell how many ranks the group of a rank along some axes has."""
        self._check_groups(axes)
        if self.axis in axes:
            return sum(one.members(axes[1:]) for one in self.submeshes)
        return self.submeshes[self.stage(rank)].members(axes)

    def group(self, rank: int, axes: Sequence[str]) -> tuple[int, ...]:
        """List the ranks that share with a rank all coordinates but those along some axes."""
        self._check_groups(axes)
        if self.axis in axes:
            return tuple(self._across(rank, axes[1:]))
        stage = self.stage(rank)
        first = self.firsts[stage]
        return tuple(first + at for at in self.submeshes[stage].group(rank - first, axes))

    def index(self, rank: int, axes: Sequence[str]) -> int:
        """Tell the position of a rank in its group along some axes."""
        return self.group(rank, axes).index(rank)

    def grid(self, first: int = 0) -> tuple[tuple[str, ...], ...]:
        """Lay the ranks out as rows of a table, those of each stage after one another."""
        grids = [
            one.grid(first + start) for one, start in zip(self.submeshes, self.firsts, strict=True)
        ]
        rows = ((str(stage), *row) for stage, (_, *grid) in enumerate(grids) for row in grid)
        return ((self.axis, *grids[0][0]), *rows)

    def _across(self, rank: int, inner: Sequence[str]) -> Iterator[int]:
        """The ranks of every stage at a rank's place, along some axes within the stages."""
        place = self.coordinates(rank)
        for one, first in zip(self.submeshes, self.firsts, strict=True):
            here = {name: 0 if name in inner else place[name] for name in one.names}
            yield from (first + at for at in one.group(one.rank(here), inner))

    def _check_groups(self, axes: Sequence[str]) -> None:
        if not self.has_groups(axes):
            self._check_names(axes)
            needed = ", ".join((self.axis, *self.uneven))
            raise ParframeError(
                "mesh",
                f"axes {', '.join(axes)}",
                f"the stages of the mesh {self} have no groups along them",
                f"give axes within the stages, or {needed} and perhaps others",
            )
