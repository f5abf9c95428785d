"""What a strategy says, and where a list of strategies puts the names of dimensions on a mesh."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import Mesh, format_composite

STAGES = "layers"
"""The name that stands for the order of operators: it is cut into pipeline stages."""

Cut = str | int
"""Where a new pipeline stage begins: before the layer of a number, or before a module path."""


@attrs.frozen
class Strategy:
    """A map from names of dimensions to one mesh axis.

    A strategy is a subclass that states the three class attributes. If it has options, they are
    fields of an attrs class, with defaults; a spec sets them under `[strategies.<code>]`, the
    code in small letters.

    Examples
    --------
    >>> @attrs.frozen
    ... class ContextParallel(Strategy):
    ...     '''Split the sequence, on an axis of its own.'''
    ...
    ...     code = "CP"
    ...     axis = "cp"
    ...     splits = ("sequence",)
    """

    code: ClassVar[str]
    """The capital letters that name it in a composite; they end in P."""
    axis: ClassVar[str]
    """The mesh axis it works on."""
    splits: ClassVar[tuple[str, ...]]
    """The names of the dimensions that it splits."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Those of them without which it makes no sense: a model that has none is refused."""

    def stage_cuts(self) -> tuple[Cut, ...]:
        """Tell where new pipeline stages must begin.

        Returns
        -------
        tuple of str or int
            Module paths or numbers of layers; none if the strategy leaves the choice open.
        """
        return ()

    def fills(self) -> tuple[str, ...]:
        """Tell of which of its names every device must get something.

        Returns
        -------
        tuple of str
            Names; a plan in which devices get nothing of these and are idle there is refused.
        """
        return ()

    def exchanges(self) -> tuple[str, ...]:
        """Tell in which ways devices exchange, where an operator could also gather.

        Returns
        -------
        tuple of str
            Names of exchanges that operators' rules have, such as `ring`; none to gather. A model
            without an operator that has the exchange is refused, unless the name ends in `?`.
        """
        return ()

    def mirrored(self) -> tuple[str, ...]:
        """Tell which names are split in two halves at once, the second in the opposite order.

        Returns
        -------
        tuple of str
            Names among `splits`: the first device has the first and the last part.
        """
        return ()


Part = tuple[Strategy, int | None]
"""A strategy with its degree, or None where it shares the axis of another."""


@attrs.frozen
class Split:
    """The mesh axes over which the dimensions of one name are split.

    Parameters
    ----------
    name : str
        The name of a dimension, such as `heads`.
    axes : tuple of str
        Names of mesh axes, the one that splits first at the front.
    required : bool
        Whether a model that has no dimension of that name is an error: true where a spec gives
        the split itself or a strategy needs it, false where a strategy offers it.
    filled : bool
        Whether it is an error if there is not something of it for every device.
    """

    name: str
    axes: tuple[str, ...]
    required: bool = False
    filled: bool = False


@attrs.frozen
class Placing:
    """Names placed on a mesh.

    Parameters
    ----------
    mesh : Mesh
        The devices.
    splits : tuple of Split
        At most one for each name, in order of priority.
    cuts : tuple of str or int
        Where new pipeline stages must begin.
    exchanges : mapping of str to tuple of str
        For a mesh axis, in which ways its devices exchange where an operator could also gather.
    mirrored : tuple of str
        Names that are split in two halves at once, the second in the opposite order.
    """

    mesh: Mesh
    splits: tuple[Split, ...] = ()
    cuts: tuple[Cut, ...] = ()
    exchanges: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    mirrored: tuple[str, ...] = ()

    def axes(self, name: str) -> tuple[str, ...]:
        """Tell over which mesh axes a name is split.

        Parameters
        ----------
        name : str
            The name of a dimension.

        Returns
        -------
        tuple of str
            The axes, none if the name is not split.
        """
        return next((split.axes for split in self.splits if split.name == name), ())

    def exchanging(self, axes: Sequence[str]) -> frozenset[str]:
        """Tell in which ways the devices of a group exchange.

        Parameters
        ----------
        axes : sequence of str
            The mesh axes of the group.

        Returns
        -------
        frozenset of str
            The exchanges that are wanted on all of these axes.
        """
        wanted = (self.exchanges.get(axis, ()) for axis in axes)
        return frozenset.intersection(
            *(frozenset(name.removesuffix("?") for name in names) for names in wanted)
        )

    def within(self, submesh: Mesh) -> "Placing":
        """Give the names as they lie on one of the meshes that the mesh is made of.

        Parameters
        ----------
        submesh : Mesh
            One of `mesh.submeshes`.

        Returns
        -------
        Placing
            The placing itself, if its mesh is made of nothing else.
        """
        if submesh == self.mesh:
            return self
        splits = tuple(split for split in self.splits if split.name != STAGES)
        return Placing(submesh, splits, exchanges=self.exchanges, mirrored=self.mirrored)


def declare(code: str, axis: str, splits: Sequence[str], base: type[Strategy]) -> type[Strategy]:
    """Make a strategy without Python: from what a spec declares.

    Parameters
    ----------
    code : str
        Its code in composites.
    axis : str
        Its mesh axis.
    splits : sequence of str
        The names that it splits.
    base : type of Strategy
        The strategy whose options it keeps; `Strategy` itself if it has none.

    Returns
    -------
    type of Strategy
        The strategy.
    """
    stated = {"code": code, "axis": axis, "splits": tuple(splits), "__doc__": base.__doc__}
    return type(base.__name__, (base,), stated)


def mesh_of(parts: Sequence[Part]) -> Mesh:
    """Make the mesh that strategies with degrees span.

    Parameters
    ----------
    parts : sequence of (Strategy, int or None)
        The strategies in the order of the composite.

    Returns
    -------
    Mesh
        One axis for each strategy with a degree, in that order.

    Raises
    ------
    ParframeError
        Of kind `strategy`, if two give a degree for one axis, or one shares an axis that no
        other gives a degree.
    """
    owners: dict[str, Part] = {}
    for strategy, degree in parts:
        if degree is None:
            continue
        if strategy.axis in owners:
            raise _two_owners(owners[strategy.axis], (strategy, degree))
        owners[strategy.axis] = (strategy, degree)
    for strategy, degree in parts:
        if degree is None and strategy.axis not in owners:
            raise ParframeError(
                "strategy",
                "parallel",
                f"{strategy.code} has no degree, and no other strategy gives its axis "
                f"{strategy.axis!r} one",
                f"give it a degree, as in {strategy.code}2",
            )
    return Mesh((axis, degree) for axis, (_, degree) in owners.items() if degree)


def place(
    parts: Sequence[Part], mesh: Mesh, overrides: Mapping[str, Sequence[str]] | None = None
) -> Placing:
    """Put the names that strategies split on the axes of a mesh.

    Strategies with a degree come before those that share an axis; within both, the order is that
    of the composite. Where two strategies split one name, its axes follow in that order.

    Parameters
    ----------
    parts : sequence of (Strategy, int or None)
        The strategies in the order of the composite.
    mesh : Mesh
        The devices, with the axes of all strategies.
    overrides : mapping of str to sequence of str, optional
        Axes that replace what the strategies say about a name; none leave it whole.

    Returns
    -------
    Placing
        The names on the mesh.

    Raises
    ------
    ParframeError
        Of kind `strategy`, if an axis is unknown or given twice for one name.

    Examples
    --------
    >>> mesh = Mesh((("dp", 2), ("tp", 4)))
    >>> place([], mesh, {"ffn": ("dp", "tp")}).splits
    (Split(name='ffn', axes=('dp', 'tp'), required=True, filled=False),)
    """
    overrides = overrides or {}
    ordered = sorted(parts, key=lambda part: part[1] is None)
    axes: dict[str, tuple[str, ...]] = {}
    required = {*overrides, *(name for strategy, _ in ordered for name in strategy.needs)}
    filled = {name for strategy, _ in ordered for name in strategy.fills()}
    exchanges: dict[str, tuple[str, ...]] = {}
    for strategy, _ in ordered:
        _check_axes(mesh, f"strategy {strategy.code}", (strategy.axis,))
        for name in strategy.splits:
            axes[name] = tuple(dict.fromkeys((*axes.get(name, ()), strategy.axis)))
        if wanted := strategy.exchanges():
            exchanges[strategy.axis] = (*exchanges.get(strategy.axis, ()), *wanted)
    for name, given in overrides.items():
        _check_axes(mesh, f"splits.{name}", given)
        axes[name] = tuple(given)
    return Placing(
        mesh=mesh,
        splits=tuple(
            Split(name, over, name in required, name in filled)
            for name, over in axes.items()
            if over
        ),
        cuts=tuple(cut for strategy, _ in ordered for cut in strategy.stage_cuts()),
        exchanges=exchanges,
        mirrored=tuple(dict.fromkeys(name for one, _ in ordered for name in one.mirrored())),
    )


def _two_owners(first: Part, second: Part) -> ParframeError:
    (one, degree), (other, again) = first, second
    shared = format_composite(((one.code, degree), (other.code, None)))
    return ParframeError(
        "strategy",
        "parallel",
        f"{one.code}{degree} and {other.code}{again} both give axis {one.axis!r} a degree",
        f"write {shared} to let {other.code} share the axis",
    )


def _check_axes(mesh: Mesh, where: str, axes: Sequence[str]) -> None:
    for axis in axes:
        if axis not in mesh.names:
            raise ParframeError(
                "strategy",
                where,
                f"the mesh has no axis {axis!r}{did_you_mean(axis, mesh.names)}",
                f"use axes of the mesh: {', '.join(mesh.names) or 'it has none'}",
            )
    if len(set(axes)) < len(axes):
        raise ParframeError(
            "strategy", where, f"axes {', '.join(axes)} repeat one", "give each axis once"
        )
