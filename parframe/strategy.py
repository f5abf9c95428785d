"""Strategies, and the mapping of named dimensions to mesh axes that follows from them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import Mesh, format_composite

STAGES = "layers"
"""Name of the dimension that pipeline stages split: the order of the operators."""

StageStart = str | int
"""Start of a pipeline stage: the number of its first layer, or a module path."""


@attrs.frozen
class Strategy:
    """Mapping of named dimensions to one mesh axis.

    A strategy is a subclass that defines the class attributes ``code``, ``axis`` and ``splits``.
    Its options are the fields of an attrs class, with defaults; a spec sets them under
    `[strategies.<code>]`, with the code in lower case.

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
    """Code in a composite: uppercase, ending in P."""
    axis: ClassVar[str]
    """Mesh axis that it splits dimensions over."""
    splits: ClassVar[tuple[str, ...]]
    """Names of the dimensions that it splits."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Names that the model must have; a model without them is refused."""

    def fixed_stage_starts(self) -> tuple[StageStart, ...]:
        """Return where pipeline stages after the first one start.

        Returns
        -------
        tuple of str or int
            Module paths or numbers of layers; empty if stages are to be balanced.
        """
        return ()

    def no_idle(self) -> tuple[str, ...]:
        """Return the names of which every device must get a part.

        Returns
        -------
        tuple of str
            Names; a mesh with more devices than there is to split is refused for these.
        """
        return ()

    def distributed_forms(self) -> tuple[str, ...]:
        """Return the distributed forms that operators take on the axis, instead of gathering.

        Returns
        -------
        tuple of str
            Names of distributed forms that rules define, such as `ring`; empty to gather. A model
            without an operator that has the form is refused, unless the name ends in `?`.
        """
        return ()

    def zigzag(self) -> tuple[str, ...]:
        """Return the names that are split in zigzag order.

        Both halves of such a dimension are split, the second in the opposite order: the first
        device has the first and the last part.

        Returns
        -------
        tuple of str
            Names among `splits`.
        """
        return ()


Part = tuple[Strategy, int | None]
"""Strategy with its degree, or None where it shares the axis of another."""


@attrs.frozen
class Split:
    """Mesh axes over which the dimensions of one name are split.

    Parameters
    ----------
    name : str
        The name of a dimension, such as `heads`.
    axes : tuple of str
        Names of mesh axes, the one that splits first in front.
    required : bool
        Whether a model without a dimension of that name is an error: true where a spec gives the
        split itself or a strategy needs it, false where a strategy offers it.
    no_idle : bool
        Whether it is an error if a device gets no part of it.
    """

    name: str
    axes: tuple[str, ...]
    required: bool = False
    no_idle: bool = False


@attrs.frozen
class Placing:
    """Mesh, and the axes over which each named dimension is split.

    Parameters
    ----------
    mesh : Mesh
        The devices.
    splits : tuple of Split
        At most one for each name, in order of priority.
    stage_starts : tuple of str or int
        Where pipeline stages after the first one start; empty if they are balanced.
    distributed_forms : mapping of str to tuple of str
        For a mesh axis, the distributed forms that operators take on it instead of gathering.
    zigzag : tuple of str
        Names that are split in zigzag order.
    """

    mesh: Mesh
    splits: tuple[Split, ...] = ()
    stage_starts: tuple[StageStart, ...] = ()
    distributed_forms: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    zigzag: tuple[str, ...] = ()

    def axes(self, name: str) -> tuple[str, ...]:
        """Return the mesh axes over which a name is split; none if it is not split."""
        return next((split.axes for split in self.splits if split.name == name), ())

    @property
    def stage_axes(self) -> tuple[str, ...]:
        """Mesh axes of degree above 1 along which the pipeline stages lie."""
        return tuple(axis for axis in self.axes(STAGES) if self.mesh.degree(axis) > 1)

    def forms_along(self, axes: Sequence[str]) -> frozenset[str]:
        """Return the distributed forms that operators take along all of some mesh axes."""
        wanted = (self.distributed_forms.get(axis, ()) for axis in axes)
        return frozenset.intersection(
            *(frozenset(name.removesuffix("?") for name in names) for names in wanted)
        )

    def within(self, submesh: Mesh) -> "Placing":
        """Restrict the placing to one of the submeshes; return itself if there is one only."""
        if submesh == self.mesh:
            return self
        splits = tuple(split for split in self.splits if split.name != STAGES)
        return Placing(
            submesh, splits, distributed_forms=self.distributed_forms, zigzag=self.zigzag
        )


def declare(code: str, axis: str, splits: Sequence[str], base: type[Strategy]) -> type[Strategy]:
    """Make a strategy class from the declaration in a spec, with the options of its base."""
    attributes = {"code": code, "axis": axis, "splits": tuple(splits), "__doc__": base.__doc__}
    return type(base.__name__, (base,), attributes)


def mesh_of(parts: Sequence[Part]) -> Mesh:
    """Return the mesh of a composite: an axis for each strategy with a degree, in that order.

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
                f"{strategy.code} has no degree, and no other strategy gives one to its axis "
                f"{strategy.axis!r}",
                f"give it a degree, as in {strategy.code}2",
            )
    return Mesh((axis, degree) for axis, (_, degree) in owners.items() if degree)


def place(
    parts: Sequence[Part], mesh: Mesh, overrides: Mapping[str, Sequence[str]] | None = None
) -> Placing:
    """Map the names that strategies split to the axes of a mesh.

    Strategies with a degree come before those that share an axis; within both, the order is that
    of the composite. Where two strategies split one name, its axes follow in that order.

    Parameters
    ----------
    parts : sequence of (Strategy, int or None)
        The strategies in the order of the composite.
    mesh : Mesh
        The devices, with the axes of all strategies.
    overrides : mapping of str to sequence of str, optional
        Axes that replace those of the strategies for a name; a name without axes is not split.

    Returns
    -------
    Placing
        The mesh with the axes of every name.

    Raises
    ------
    ParframeError
        Of kind `strategy`, if an axis is unknown or given twice for one name.

    Examples
    --------
    >>> mesh = Mesh((("dp", 2), ("tp", 4)))
    >>> place([], mesh, {"ffn": ("dp", "tp")}).splits
    (Split(name='ffn', axes=('dp', 'tp'), required=True, no_idle=False),)
    """
    overrides = overrides or {}
    ordered = sorted(parts, key=lambda part: part[1] is None)
    axes: dict[str, tuple[str, ...]] = {}
    required = {*overrides, *(name for strategy, _ in ordered for name in strategy.needs)}
    no_idle = {name for strategy, _ in ordered for name in strategy.no_idle()}
    forms: dict[str, tuple[str, ...]] = {}
    for strategy, _ in ordered:
        _check_axes(mesh, f"strategy {strategy.code}", (strategy.axis,))
        for name in strategy.splits:
            axes[name] = tuple(dict.fromkeys((*axes.get(name, ()), strategy.axis)))
        if wanted := strategy.distributed_forms():
            forms[strategy.axis] = (*forms.get(strategy.axis, ()), *wanted)
    for name, given in overrides.items():
        _check_axes(mesh, f"splits.{name}", given)
        axes[name] = tuple(given)
    return Placing(
        mesh=mesh,
        splits=tuple(
            Split(name, over, name in required, name in no_idle)
            for name, over in axes.items()
            if over
        ),
        stage_starts=tuple(
            start for strategy, _ in ordered for start in strategy.fixed_stage_starts()
        ),
        distributed_forms=forms,
        zigzag=tuple(dict.fromkeys(name for one, _ in ordered for name in one.zigzag())),
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
