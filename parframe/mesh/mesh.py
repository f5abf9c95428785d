"""The devices of a plan as a grid with named axes.

The first axis of a mesh varies slowest over ranks: on `(("pp", 2), ("tp", 4))` rank 5 has the
coordinates `pp=1, tp=1`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh.axes import MAX_DEVICES, Shares, as_axes, as_shares, check_axes, check_shares


@attrs.frozen
class Mesh:
    """Grid of devices with named axes.

    Parameters
    ----------
    axes : tuple of (str, int)
        Name and degree of each axis; the first varies slowest over ranks. A mesh without axes
        is one device.
    shares : mapping of str to sequence of int
        For axes along which devices are unequal, the share of each device in order. Whatever is
        split over the axis is split in this ratio.

    Raises
    ------
    ParframeError
        Of kind `mesh`, for a name, a degree or a share that is not legal.

    Examples
    --------
    >>> mesh = Mesh((("pp", 2), ("tp", 4)))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, ("tp",))
    (8, {'pp': 1, 'tp': 1}, (4, 5, 6, 7))
    """

    axes: tuple[tuple[str, int], ...] = attrs.field(converter=as_axes)
    shares: Shares = attrs.field(default=(), converter=as_shares)

    def __attrs_post_init__(self) -> None:
        check_axes(self.axes)
        if self.size > MAX_DEVICES:
            raise ParframeError(
                "mesh", str(self), f"has {self.size} devices", f"use at most {MAX_DEVICES}"
            )
        check_shares(self.shares, self._degrees)

    def __str__(self) -> str:
        return ", ".join(map(self._describe_axis, self.names)) or "one device"

    @property
    def size(self) -> int:
        """Number of devices."""
        return math.prod(degree for _, degree in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, the slowest first."""
        return tuple(name for name, _ in self.axes)

    @property
    def submeshes(self) -> tuple["Mesh", ...]:
        """Regular meshes that it consists of, in the order of their ranks: itself."""
        return (self,)

    @cached_property
    def _degrees(self) -> dict[str, int]:
        return dict(self.axes)

    @cached_property
    def _strides(self) -> dict[str, int]:
        strides, stride = {}, 1
        for name, degree in reversed(self.axes):
            strides[name] = stride
            stride *= degree
        return strides

    def degree(self, axis: str) -> int:
        """Return the number of devices along an axis.

        Parameters
        ----------
        axis : str
            The name of an axis of this mesh.

        Returns
        -------
        int
            The degree of the axis.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such axis.
        """
        self._check_names((axis,))
        return self._degrees[axis]

    def ratio(self, axes: Sequence[str]) -> tuple[int, ...]:
        """Return the ratio in which a dimension is split over some axes.

        Parameters
        ----------
        axes : sequence of str
            The axes; the first given varies slowest.

        Returns
        -------
        tuple of int
            The share of every rank of a group along the axes, without common factors.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such axis.

        Examples
        --------
        >>> Mesh((("dp", 2), ("tp", 2)), {"tp": (6, 2)}).ratio(("dp", "tp"))
        (3, 1, 3, 1)
        """
        self._check_names(axes)
        given = dict(self.shares)
        along = [given.get(axis, (1,) * self._degrees[axis]) for axis in axes]
        shares = [math.prod(share) for share in product(*along)]
        common = math.gcd(*shares)
        return tuple(share // common for share in shares)

    def coordinates(self, rank: int) -> dict[str, int]:
        """Return the coordinates of a rank.

        Parameters
        ----------
        rank : int
            A rank of this mesh.

        Returns
        -------
        dict of str to int
            The position along every axis, in the order of the axes.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such rank.
        """
        if not 0 <= rank < self.size:
            raise ParframeError(
                "mesh", f"rank {rank}", f"the mesh {self} has {self.size} ranks", self._rank_hint()
            )
        return {name: rank // self._strides[name] % degree for name, degree in self.axes}

    def rank(self, coordinates: Mapping[str, int]) -> int:
        """Return the rank at some coordinates.

        Parameters
        ----------
        coordinates : mapping of str to int
            The position along every axis.

        Returns
        -------
        int
            The rank.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if an axis is missing or unknown, or a position is outside it.
        """
        self._check_names(coordinates)
        for name, degree in self.axes:
            if not 0 <= coordinates.get(name, -1) < degree:
                raise ParframeError(
                    "mesh",
                    f"axis {name!r}",
                    f"the coordinates {dict(coordinates)} have no position on it",
                    f"give {name} from 0 to {degree - 1}",
                )
        return sum(coordinates[name] * self._strides[name] for name in self.names)

    def has_groups(self, axes: Sequence[str]) -> bool:
        """Tell whether there are groups of ranks along some axes.

        Parameters
        ----------
        axes : sequence of str
            Names of axes, which this mesh need not have.

        Returns
        -------
        bool
            True if each is an axis of this mesh and none is given twice.
        """
        return set(axes) <= set(self.names) and len(set(axes)) == len(axes)

    def group_size(self, axes: Sequence[str], rank: int = 0) -> int:
        """Return the number of ranks of a group along some axes.

        Parameters
        ----------
        axes : sequence of str
            Axes along which there are groups.
        rank : int
            A rank of the group; the groups of a mesh may differ in size.

        Returns
        -------
        int
            The number of ranks.
        """
        self._check_names(axes)
        return math.prod(self._degrees[axis] for axis in axes)

    def group(self, rank: int, axes: Sequence[str]) -> tuple[int, ...]:
        """List the ranks of a group: all their coordinates are equal but those along some axes.

        Parameters
        ----------
        rank : int
            A rank of this mesh.
        axes : sequence of str
            The axes along which the group extends; the first given varies slowest in it.

        Returns
        -------
        tuple of int
            The ranks of the group, `rank` among them.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such rank or axis.
        """
        base = rank - sum(self._strides[a] * at for a, at in self._along(rank, axes))
        steps = [range(0, self._degrees[a] * self._strides[a], self._strides[a]) for a in axes]
        return tuple(base + sum(step) for step in product(*steps))

    def index(self, rank: int, axes: Sequence[str]) -> int:
        """Return the position of a rank in its group along some axes.

        Parameters
        ----------
        rank : int
            A rank of this mesh.
        axes : sequence of str
            The axes along which the group extends; the first given varies slowest in it.

        Returns
        -------
        int
            The position `i` for which `group(rank, axes)[i] == rank`.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such rank or axis.
        """
        position = 0
        for axis, at in self._along(rank, axes):
            position = position * self._degrees[axis] + at
        return position

    def groups(self, axes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """List every group along some axes.

        Parameters
        ----------
        axes : sequence of str
            The axes along which the groups extend; the first given varies slowest in each.

        Returns
        -------
        tuple of tuple of int
            The groups, ordered by their first rank; each rank is in exactly one.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such axis.
        """
        firsts = (rank for rank in range(self.size) if self.index(rank, axes) == 0)
        return tuple(self.group(rank, axes) for rank in firsts)

    def _along(self, rank: int, axes: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Check a rank and axes, and return the position of the rank along each axis."""
        self._check_names(axes)
        if len(set(axes)) < len(axes):
            raise ParframeError(
                "mesh", f"axes {', '.join(axes)}", "one is given twice", "give each axis once"
            )
        coordinates = self.coordinates(rank)
        return ((axis, coordinates[axis]) for axis in axes)

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._degrees:
                raise ParframeError(
                    "mesh",
                    f"axis {name!r}",
                    f"the mesh has no such axis{did_you_mean(name, self.names)}",
                    f"use one of its axes: {', '.join(self.names) or 'it has no axes'}",
                )

    def _describe_axis(self, name: str) -> str:
        given = dict(self.shares).get(name)
        shares = f" ({':'.join(map(str, given))})" if given else ""
        return f"{name}={self._degrees[name]}{shares}"

    def _rank_hint(self) -> str:
        return f"give a rank from 0 to {self.size - 1}"
