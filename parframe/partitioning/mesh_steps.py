"""Steps of a placed graph for every shape of device of a mesh."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.dims import Dimensions
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.partitioning.cuts import Cut, Shape, shape_of
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.step_sequence import StepSequence, sequence_steps


@attrs.frozen
class MeshSteps:
    """Placed graph written out as steps for the devices of a mesh, without pipeline stages.

    ``shapes`` and ``sequences`` have the different shapes of devices and their steps by an
    alphabetic name, ``shape_names`` the name of every rank's shape.
    """

    mesh: Mesh
    cuts: tuple[Cut, ...]
    placed: PlacedGraph
    shapes: Mapping[str, Shape]
    shape_names: list[str]
    sequences: Mapping[str, StepSequence]

    @property
    def model(self) -> StepSequence:
        """One of the sequences; they differ in sizes only."""
        return next(iter(self.sequences.values()))


def write_mesh_steps(
    graph: OperatorGraph,
    dimensions: Dimensions,
    mesh: Mesh,
    cuts: tuple[Cut, ...],
    placed: PlacedGraph,
) -> MeshSteps:
    """Write a placed graph out as steps for every shape of device."""
    shapes: dict[str, Shape] = {}
    names: dict[object, str] = {}
    shape_names: list[str] = []
    for rank in range(mesh.size):
        shape = shape_of(cuts, mesh, rank)
        key = tuple(tuple(pieces.items()) for pieces in shape.pieces)
        if key not in names:
            names[key] = alphabetic_name(len(names))
            shapes[names[key]] = shape
        shape_names.append(names[key])
    sequences = {
        name: sequence_steps(graph, dimensions, placed, cuts, shape)
        for name, shape in shapes.items()
    }
    return MeshSteps(mesh, cuts, placed, shapes, shape_names, sequences)


def alphabetic_name(number: int) -> str:
    """Return the name of a number: a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
