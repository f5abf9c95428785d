"""Programs: the sequence of each shape of device, cut into stages, as the plan's programs."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.dims import Dimensions
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.partitioning.cuts import Cut, Shape, bindings_of, shape_of
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.notes import notes_of
from parframe.partitioning.stage_assignment import Staging
from parframe.partitioning.step_costs import works_of
from parframe.partitioning.step_sequence import Sequence, sequence
from parframe.plan import Device, Plan, Program
from parframe.strategy import STAGES, Placing


@attrs.frozen
class Laid:
    """A placed graph written out for the devices of a mesh.

    ``kinds`` are the different shapes of devices, lettered, ``kind_of`` has the letter of every
    rank's; ``sequences`` what devices of each would do if there were one stage.
    """

    mesh: Mesh
    cuts: tuple[Cut, ...]
    placed: PlacedGraph
    kinds: Mapping[str, Shape]
    kind_of: list[str]
    sequences: Mapping[str, Sequence]

    @property
    def model(self) -> Sequence:
        """One of the sequences: they differ in sizes alone."""
        return next(iter(self.sequences.values()))


def lay_out(
    graph: OperatorGraph,
    dimensions: Dimensions,
    mesh: Mesh,
    cuts: tuple[Cut, ...],
    placed: PlacedGraph,
) -> Laid:
    """Write a placed graph out for every shape of device."""
    kinds, kind_of = _kinds(cuts, mesh)
    sequences = {
        kind: sequence(graph, dimensions, placed, cuts, shape) for kind, shape in kinds.items()
    }
    return Laid(mesh, cuts, placed, kinds, kind_of, sequences)


def write_plan(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placing: Placing,
    cuts: tuple[Cut, ...],
    placed: PlacedGraph,
) -> Plan:
    """Cut the stages and write every program and device."""
    mesh = placing.mesh
    axis = stage_axis(placing)
    laid = lay_out(graph, dimensions, mesh, cuts, placed)
    kinds, works = laid.kinds, works_of(graph, dimensions)
    staging = Staging(graph, placed, laid.model, axis, mesh.ratio(axis), placing, works)
    programs: dict[str, Program] = {}
    devices = []
    for rank in range(mesh.size):
        stage = mesh.index(rank, axis) if axis else 0
        kind = laid.kind_of[rank]
        name = f"stage{stage}" + (f"_{kind}" if len(kinds) > 1 else "")
        if name not in programs:
            programs[name] = staging.program(
                name, stage, laid.sequences[kind], dimensions, kinds[kind], staging.lines(stage)
            )
        devices.append(Device(rank, name, bindings_of(cuts, mesh, rank)))
    return Plan(
        graph=graph,
        placing=placing,
        programs=programs,
        devices=tuple(devices),
        notes=notes_of(graph, dimensions, placed, cuts, mesh),
    )


def _kinds(cuts: tuple[Cut, ...], mesh: Mesh) -> tuple[dict[str, Shape], list[str]]:
    """The different shapes of devices, lettered, and the letter of every rank's."""
    kinds: dict[str, Shape] = {}
    known: dict[object, str] = {}
    kind_of: list[str] = []
    for rank in range(mesh.size):
        shape = shape_of(cuts, mesh, rank)
        key = tuple(tuple(pieces.items()) for pieces in shape.pieces)
        if key not in known:
            known[key] = letters(len(known))
            kinds[known[key]] = shape
        kind_of.append(known[key])
    return kinds, kind_of


def letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def stage_axis(placing: Placing) -> tuple[str, ...]:
    """The mesh axes along which the stages of a placing lie."""
    return tuple(
        axis
        for split in placing.splits
        if split.name == STAGES
        for axis in split.axes
        if placing.mesh.degree(axis) > 1
    )
