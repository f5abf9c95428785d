"""Devices as a named grid.

The first axis of a mesh varies slowest over ranks: on `(("pp", 2), ("tp", 4))` rank 5 has the
coordinates `pp=1, tp=1`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product

import attrs

from parframe.errors import ParframeError, did_you_mean

MAX_DEVICES = 65_536
"""No degree and no mesh may be larger than this."""

MAX_SHARE = 65_536
"""No share of a device may be larger than this."""

Shares = tuple[tuple[str, tuple[int, ...]], ...]
"""For some axes of a mesh, the share of each device along it."""

_AXIS = re.compile(r"[a-z][a-z0-9_]{0,31}")


def _pairs(axes: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple((name, degree) for name, degree in axes)


def _shares(shares: Mapping[str, Iterable[int]] | Shares) -> Shares:
    return tuple((name, tuple(parts)) for name, parts in dict(shares).items())


@attrs.frozen
class Mesh:
    """A grid of devices with named axes.

    Parameters
    ----------
    axes : tuple of (str, int)
        Name and degree of each axis; the first varies slowest over ranks. No axis at all is
        one device.
    shares : mapping of str to sequence of int
        Of axes along which devices are unequal: the share of each device, one after the other.
        Whatever is split over the axis is split in this ratio.

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

    axes: tuple[tuple[str, int], ...] = attrs.field(converter=_pairs)
    shares: Shares = attrs.field(default=(), converter=_shares)

    def __attrs_post_init__(self) -> None:
        for name, degree in self.axes:
            _check_axis(name, degree)
        for name in self.names:
            if self.names.count(name) > 1:
                raise ParframeError(
                    "mesh", f"axis {name!r}", "given twice", "name each axis of a mesh once"
                )
        if self.size > MAX_DEVICES:
            raise ParframeError(
                "mesh", str(self), f"has {self.size} devices", f"use at most {MAX_DEVICES}"
            )
        for name, parts in self.shares:
            _check_shares(name, parts, self._degrees)

    def __str__(self) -> str:
        return ", ".join(map(self._shown, self.names)) or "one device"

    @property
    def size(self) -> int:
        """The number of devices."""
        return math.prod(degree for _, degree in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes, the slowest first."""
        return tuple(name for name, _ in self.axes)

    @property
    def submeshes(self) -> tuple["Mesh", ...]:
        """The regular meshes it is made of, in the order of their ranks: itself."""
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
        """Tell how many devices lie along an axis.

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
        """Tell in which ratio something is split over some axes.

        Parameters
        ----------
        axes : sequence of str
            The axes; the first given varies slowest.

        Returns
        -------
        tuple of int
            For every member of a group along the axes its share, without common factors.

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
        """Tell where a rank lies.

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
                "mesh", f"rank {rank}", f"the mesh {self} has {self.size} ranks", self._way_out()
            )
        return {name: rank // self._strides[name] % degree for name, degree in self.axes}

    def rank(self, coordinates: Mapping[str, int]) -> int:
        """Tell which rank lies at a place.

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
                    f"the place {dict(coordinates)} has no position on it",
                    f"give {name} from 0 to {degree - 1}",
                )
        return sum(coordinates[name] * self._strides[name] for name in self.names)

    def has_groups(self, axes: Sequence[str]) -> bool:
        """Tell whether the ranks fall into groups along some axes.

        Parameters
        ----------
        axes : sequence of str
            Names of axes, perhaps of none of this mesh.

        Returns
        -------
        bool
            True if each is an axis of this mesh and none is given twice.
        """
        return set(axes) <= set(self.names) and len(set(axes)) == len(axes)

    def members(self, axes: Sequence[str], rank: int = 0) -> int:
        """Tell how many ranks a group along some axes has.

        Parameters
        ----------
        axes : sequence of str
            Axes along which there are groups.
        rank : int
            A rank of the group: not all groups of a mesh have so many.

        Returns
        -------
        int
            The number of ranks.
        """
        self._check_names(axes)
        return math.prod(self._degrees[axis] for axis in axes)

    def group(self, rank: int, axes: Sequence[str]) -> tuple[int, ...]:
        """List the ranks that share with a rank all coordinates but those along some axes.

        Parameters
        ----------
        rank : int
            A rank of this mesh.
        axes : sequence of str
            The axes along which the group extends; the first given varies slowest in it.

        Returns
        -------
        tuple of int
            The ranks of the group, which `rank` itself is one of.

        Raises
        ------
        ParframeError
            Of kind `mesh`, if there is no such rank or axis.
        """
        base = rank - sum(self._strides[a] * at for a, at in self._along(rank, axes))
        steps = [range(0, self._degrees[a] * self._strides[a], self._strides[a]) for a in axes]
        return tuple(base + sum(step) for step in product(*steps))

    def index(self, rank: int, axes: Sequence[str]) -> int:
        """Tell the position of a rank in its group along some axes.

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

    def grid(self, first: int = 0) -> tuple[tuple[str, ...], ...]:
        """Lay the ranks out as rows of a table.

        Parameters
        ----------
        first : int
            The number of the first rank, where the mesh is part of another.

        Returns
        -------
        tuple of tuple of str
            A heading, then one row for each place on all axes but the last: the position along
            each, and the ranks along the last axis (a long run of them shortened).

        Examples
        --------
        >>> for row in Mesh((("pp", 2), ("tp", 3))).grid():
        ...     print(*row, sep=" | ")
        pp | ranks along tp
        0 | 0 1 2
        1 | 3 4 5
        """
        *outer, (last, degree) = self.axes or (("", 1),)
        heading = (*(name for name, _ in outer), f"ranks along {last}" if last else "ranks")
        places = product(*(range(count) for _, count in outer))
        rows = (
            (*map(str, place), _run(first + row * degree, degree))
            for row, place in enumerate(places)
        )
        return (heading, *rows)

    def _along(self, rank: int, axes: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Check a rank and axes, and give the rank's position along each of them."""
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
                    f"use one of its axes: {', '.join(self.names) or 'it has none'}",
                )

    def _shown(self, name: str) -> str:
        given = dict(self.shares).get(name)
        told = f" ({':'.join(map(str, given))})" if given else ""
        return f"{name}={self._degrees[name]}{told}"

    def _way_out(self) -> str:
        return f"give a rank from 0 to {self.size - 1}"


def is_axis(text: str) -> bool:
    """Tell whether a text can name a mesh axis.

    Parameters
    ----------
    text : str
        Such as `tp`.

    Returns
    -------
    bool
        True for up to 32 small letters, digits and underscores that begin with a letter.
    """
    return _AXIS.fullmatch(text) is not None


def _check_axis(name: str, degree: int) -> None:
    if not isinstance(name, str) or not is_axis(name):
        raise ParframeError(
            "mesh",
            f"axis {name!r}",
            "not a legal name",
            "use small letters, digits and underscores, as in 'tp'",
        )
    if isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= MAX_DEVICES:
        raise ParframeError(
            "mesh",
            f"axis {name!r}",
            f"its degree is {degree!r}",
            f"give a whole number from 1 to {MAX_DEVICES}",
        )


def _check_shares(name: str, shares: tuple[int, ...], degrees: Mapping[str, int]) -> None:
    where = f"shares.{name}"
    if name not in degrees:
        raise ParframeError(
            "mesh",
            where,
            f"the mesh has no axis {name!r}{did_you_mean(name, degrees)}",
            f"use axes of the mesh: {', '.join(degrees) or 'it has none'}",
        )
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= MAX_SHARE:
            hint = f"give whole numbers from 1 to {MAX_SHARE}"
            raise ParframeError("mesh", where, f"a share is {share!r}", hint)
    if len(shares) != degrees[name]:
        raise ParframeError(
            "mesh",
            where,
            f"has {len(shares)} shares, and the axis has {degrees[name]} devices",
            "give one share for each device along the axis",
        )


def _run(first: int, length: int) -> str:
    ranks = [str(rank) for rank in range(first, first + length)]
    return " ".join(ranks if length <= 8 else [*ranks[:3], "...", ranks[-1]])
