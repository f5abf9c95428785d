"""Pipeline stages that a spec lists: their layers, and the degrees of their meshes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import MAX_DEVICES, Mesh, StagedMesh
from parframe.spec.value_readers import wrong
from parframe.strategy import STAGES, Placing

_LAYERS = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


@attrs.frozen
class Stage:
    """Pipeline stage of a spec.

    Parameters
    ----------
    first, last : int
        The numbers of its first and of its last layer.
    degrees : mapping of str to int
        The degrees of mesh axes in this stage; the others are those of the composite.
    """

    first: int
    last: int
    degrees: Mapping[str, int] = attrs.field(factory=dict)


def read_stages(value: Any, folder: Path) -> tuple[Stage, ...]:
    """Read the stages of a spec, which must have all layers in order."""
    if not isinstance(value, list) or not value:
        raise ValueError(wrong(value))
    stages = tuple(_stage(number, entry) for number, entry in enumerate(value))
    following = 0
    for number, stage in enumerate(stages):
        if stage.first != following:
            raise ValueError(f"stage {number} begins with layer {stage.first}, not {following}")
        following = stage.last + 1
    return stages


def _stage(number: int, entry: Any) -> Stage:
    if not isinstance(entry, dict):
        raise ValueError(f"stage {number} {wrong(entry)}")
    degrees = dict(entry)
    layers = degrees.pop("layers", None)
    found = _LAYERS.fullmatch(layers) if isinstance(layers, str) else None
    if found is None:
        raise ValueError(f'stage {number} has no layers such as "0-11"')
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"stage {number} has the layers {layers}")
    for axis, degree in degrees.items():
        if type(degree) is not int or not 1 <= degree <= MAX_DEVICES:
            raise ValueError(f"{axis} of stage {number} {wrong(degree)}")
    return Stage(first, last, degrees)


def place_stages(
    placing: Placing, stages: Sequence[Stage], shares: Mapping[str, Sequence[int]]
) -> Placing:
    """Give every stage of a placing a mesh of its own.

    Parameters
    ----------
    placing : Placing
        Names on the mesh that the stages have where they say nothing else.
    stages : sequence of Stage
        What the stages say.
    shares : mapping of str to sequence of int
        The shares of unequal devices along axes within the stages.

    Returns
    -------
    Placing
        The same names on a `StagedMesh`; on a regular one, if all stages are alike.

    Raises
    ------
    ParframeError
        Of kind `mesh`, if the mesh has not so many stages, or an axis is unknown.
    """
    axis = _stage_axis(placing, shares)
    degree = placing.mesh.degree(axis)
    if degree != len(stages):
        what = f"are {len(stages)}, and the axis {axis!r} has {degree}"
        raise _refused("stages", what, f"give {degree} stages, or another degree")
    inner = {name: of for name, of in placing.mesh.axes if name != axis}
    for stage in stages:
        for name in stage.degrees:
            if name not in inner:
                what = f"there is no axis {name!r} within a stage{did_you_mean(name, inner)}"
                raise _refused("stages", what, f"use: {', '.join(inner) or 'layers alone'}")
    meshes = [Mesh({**inner, **stage.degrees}.items(), dict(shares)) for stage in stages]
    alike = all(one == meshes[0] for one in meshes)
    mesh = (
        Mesh(((axis, degree), *meshes[0].axes), dict(shares)) if alike else StagedMesh(axis, meshes)
    )
    return attrs.evolve(placing, mesh=mesh, stage_starts=tuple(stage.first for stage in stages[1:]))


def _stage_axis(placing: Placing, shares: Mapping[str, Sequence[int]]) -> str:
    """Return the axis of the layers, which must be the first and split nothing else."""
    axes = placing.axes(STAGES)
    if len(axes) != 1:
        what = f"{STAGES!r} is split over {', '.join(axes) or 'no axis'}"
        raise _refused("stages", what, "split it over one axis, as PP does")
    if axes[0] != placing.mesh.names[0]:
        hint = "give that of the stages first, as in PP2TP4: ranks are numbered stage after stage"
        raise _refused("stages", f"the first axis of the mesh is {placing.mesh.names[0]!r}", hint)
    for split in placing.splits:
        if split.name != STAGES and axes[0] in split.axes:
            what = f"the axis {axes[0]!r} of the stages splits {split.name!r}, too"
            raise _refused(f"splits.{split.name}", what, "split it over other axes")
    if axes[0] in shares:
        what = "stages say which layers each of them has"
        raise _refused(f"shares.{axes[0]}", what, "remove the shares")
    if placing.stage_starts:
        raise _refused("stages", "the stages are set by 'stage_starts' too", "keep one of them")
    return axes[0]


def _refused(where: str, what: str, hint: str) -> ParframeError:
    return ParframeError("mesh", where, what, hint)
