"""Programs: the sequence of each shape of device, cut into stages, as the plan's programs."""

from __future__ import annotations

import math

from parframe.dims import Dimensions
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.partitioning.blocks import PlacedGraph
from parframe.partitioning.costs import works_of
from parframe.partitioning.cuts import STAGES, Cut, Shape, bindings_of, shape_of
from parframe.partitioning.notes import notes_of
from parframe.partitioning.sequence import sequence
from parframe.partitioning.staging import Staging
from parframe.plan import Device, Plan, Program
from parframe.strategy import Placing


def write_plan(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placing: Placing,
    cuts: tuple[Cut, ...],
    placed: PlacedGraph,
) -> Plan:
    """Cut the stages and write every program and device."""
    mesh = placing.mesh
    axis = _stage_axis(placing)
    count = math.prod(mesh.degree(name) for name in axis)
    kinds, kind_of = _kinds(cuts, mesh)
    sequences = {
        kind: sequence(graph, dimensions, placed, cuts, shape) for kind, shape in kinds.items()
    }
    works = works_of(graph, dimensions)
    model = next(iter(sequences.values()))
    staging = Staging(graph, placed, model, axis, count, placing, works)
    programs: dict[str, Program] = {}
    devices = []
    for rank in range(mesh.size):
        stage = mesh.index(rank, axis) if axis else 0
        kind = kind_of[rank]
        name = f"stage{stage}" + (f"_{kind}" if len(kinds) > 1 else "")
        if name not in programs:
            programs[name] = staging.program(name, stage, sequences[kind], dimensions, kinds[kind])
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
            known[key] = _letters(len(known))
            kinds[known[key]] = shape
        kind_of.append(known[key])
    return kinds, kind_of


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _stage_axis(placing: Placing) -> tuple[str, ...]:
    return tuple(
        axis
        for split in placing.splits
        if split.name == STAGES
        for axis in split.axes
        if placing.mesh.degree(axis) > 1
    )
