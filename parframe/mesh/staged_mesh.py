"""Mesh whose pipeline stages have different degrees."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import attrs

from parframe.errors import ParframeError
from parframe.mesh.axes import Shares
from parframe.mesh.mesh import Mesh


def _largest_axes(mesh: "StagedMesh") -> tuple[tuple[str, int], ...]:
    """Return the stage axis, and every other axis with its largest degree."""
    largest: dict[str, int] = {}
    for submesh in mesh.submeshes:
        largest.update((name, max(degree, largest.get(name, 1))) for name, degree in submesh.axes)
    return ((mesh.stage_axis, len(mesh.submeshes)), *largest.items())


@attrs.frozen
class StagedMesh(Mesh):
    """Mesh that consists of one mesh for each pipeline stage, with equal axes and other degrees.

    Ranks are numbered stage after stage. There are groups along axes within the stages, and along
    the stage axis together with all axes whose degrees differ. The stage axis is then given first,
    so that a group has the ranks of the first stage before those of the second.

    Parameters
    ----------
    stage_axis : str
        The axis that numbers the stages.
    submeshes : tuple of Mesh
        The devices of each stage.

    Raises
    ------
    ParframeError
        Of kind `mesh`, if an axis is not legal, or the stages have different axes.

    Examples
    --------
    >>> mesh = StagedMesh("pp", (Mesh((("tp", 4),)), Mesh((("tp", 2),))))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, ("tp",)), mesh.group(5, ("pp", "tp"))
    (6, {'pp': 1, 'tp': 1}, (4, 5), (0, 1, 2, 3, 4, 5))
    """

    stage_axis: str
    submeshes: tuple[Mesh, ...] = attrs.field(converter=tuple[Mesh, ...])
    axes: tuple[tuple[str, int], ...] = attrs.field(
        init=False, repr=False, default=attrs.Factory(_largest_axes, takes_self=True)
    )
    shares: Shares = attrs.field(init=False, repr=False, default=())

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        first = self.submeshes[0]
        if any(
            (submesh.names, submesh.shares) != (first.names, first.shares)
            for submesh in self.submeshes
        ):
            raise ParframeError(
                "mesh", str(self), "its stages have different axes", "give all stages the same"
            )

    def __str__(self) -> str:
        return f"{self.stage_axis}={len(self.submeshes)} ({'; '.join(map(str, self.submeshes))})"

    @property
    def size(self) -> int:
        """Number of devices."""
        return sum(submesh.size for submesh in self.submeshes)

    @property
    def uneven_axes(self) -> tuple[str, ...]:
        """Axes whose degree differs from stage to stage."""
        return tuple(
            name
            for name in self.submeshes[0].names
            if len({submesh.degree(name) for submesh in self.submeshes}) > 1
        )

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """First rank of every stage."""
        return (0, *accumulate(submesh.size for submesh in self.submeshes[:-1]))

    def stage(self, rank: int) -> int:
        """Return the stage of a rank; raise an error if there is no such rank."""
        if not 0 <= rank < self.size:
            raise ParframeError(
                "mesh", f"rank {rank}", f"the mesh {self} has {self.size} ranks", self._rank_hint()
            )
        return max(stage for stage, first in enumerate(self.first_ranks) if first <= rank)

    def degree(self, axis: str) -> int:
        """Return the number of devices along an axis, if all stages have the same."""
        self._check_names((axis,))
        if axis in self.uneven_axes:
            raise ParframeError(
                "mesh",
                f"axis {axis!r}",
                "its degree differs from stage to stage",
                "use the degrees of its submeshes",
            )
        return dict(self.axes)[axis]

    def ratio(self, axes: Sequence[str]) -> tuple[int, ...]:
        """Return the ratio in which a dimension is split, if all stages have the same."""
        for axis in axes:
            self.degree(axis)
        return self.submeshes[0].ratio(axes)

    def coordinates(self, rank: int) -> dict[str, int]:
        """Return the coordinates of a rank: its stage, and its position there."""
        stage = self.stage(rank)
        place = self.submeshes[stage].coordinates(rank - self.first_ranks[stage])
        return {self.stage_axis: stage, **place}

    def rank(self, coordinates: Mapping[str, int]) -> int:
        """Return the rank at some coordinates."""
        stage = coordinates.get(self.stage_axis, -1)
        if not 0 <= stage < len(self.submeshes):
            raise ParframeError(
                "mesh",
                f"axis {self.stage_axis!r}",
                f"the coordinates {dict(coordinates)} have no position on it",
                f"give {self.stage_axis} from 0 to {len(self.submeshes) - 1}",
            )
        place = {name: at for name, at in coordinates.items() if name != self.stage_axis}
        return self.first_ranks[stage] + self.submeshes[stage].rank(place)

    def has_groups(self, axes: Sequence[str]) -> bool:
        """Tell whether there are groups of ranks along some axes."""
        all_stages = self.stage_axis not in axes or (
            axes[0] == self.stage_axis and set(self.uneven_axes) <= set(axes)
        )
        return super().has_groups(axes) and all_stages

    def group_size(self, axes: Sequence[str], rank: int = 0) -> int:
        """Return the number of ranks of a group along some axes."""
        self._check_groups(axes)
        if self.stage_axis in axes:
            return sum(submesh.group_size(axes[1:]) for submesh in self.submeshes)
        return self.submeshes[self.stage(rank)].group_size(axes)

    def group(self, rank: int, axes: Sequence[str]) -> tuple[int, ...]:
        """List the ranks of a group: all their coordinates are equal but those along some axes."""
        self._check_groups(axes)
        if self.stage_axis in axes:
            return tuple(self._ranks_of_all_stages(rank, axes[1:]))
        stage = self.stage(rank)
        first = self.first_ranks[stage]
        return tuple(first + at for at in self.submeshes[stage].group(rank - first, axes))

    def index(self, rank: int, axes: Sequence[str]) -> int:
        """Return the position of a rank in its group along some axes."""
        return self.group(rank, axes).index(rank)

    def _ranks_of_all_stages(self, rank: int, inner: Sequence[str]) -> Iterator[int]:
        """Yield the ranks of every stage at a rank's position, along axes within the stages."""
        place = self.coordinates(rank)
        for submesh, first in zip(self.submeshes, self.first_ranks, strict=True):
            here = {name: 0 if name in inner else place[name] for name in submesh.names}
            yield from (first + at for at in submesh.group(submesh.rank(here), inner))

    def _check_groups(self, axes: Sequence[str]) -> None:
        if not self.has_groups(axes):
            self._check_names(axes)
            needed = ", ".join((self.stage_axis, *self.uneven_axes))
            raise ParframeError(
                "mesh",
                f"axes {', '.join(axes)}",
                f"the stages of the mesh {self} have no groups along them",
                f"give axes within the stages, or {needed}",
            )
