"""Plans on a regular mesh: all pipeline stages have the same degrees."""

from __future__ import annotations

from parframe.dims import Dimensions
from parframe.graph import OperatorGraph
from parframe.partitioning.cuts import Cut, bindings_of
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.mesh_steps import write_mesh_steps
from parframe.partitioning.notes import notes_of
from parframe.partitioning.stage_assignment import StageAssignment
from parframe.partitioning.stage_programs import StageWriter
from parframe.partitioning.step_costs import works_of
from parframe.plan import Device, Plan, Program
from parframe.strategy import Placing


def write_regular_plan(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placing: Placing,
    cuts: tuple[Cut, ...],
    placed: PlacedGraph,
) -> Plan:
    """Divide a placed graph into stages, and write the program of every device."""
    mesh, axes = placing.mesh, placing.stage_axes
    steps = write_mesh_steps(graph, dimensions, mesh, cuts, placed)
    works = works_of(graph, dimensions)
    stages = StageAssignment(graph, placed, steps.model, axes, mesh.ratio(axes), placing, works)
    writer = StageWriter(stages, dimensions)
    programs: dict[str, Program] = {}
    devices = []
    for rank in range(mesh.size):
        stage = mesh.index(rank, axes) if axes else 0
        shape = steps.shape_names[rank]
        name = f"stage{stage}" + (f"_{shape}" if len(steps.shapes) > 1 else "")
        if name not in programs:
            communication = writer.communication(stage)
            programs[name] = writer.program(
                name, stage, steps.sequences[shape], steps.shapes[shape], communication
            )
        devices.append(Device(rank, name, bindings_of(cuts, mesh, rank)))
    notes = notes_of(graph, dimensions, placed, cuts, mesh)
    return Plan(graph, placing, programs, tuple(devices), notes)
