"""Plans on a mesh whose pipeline stages have different degrees.

The graph is placed as a whole on each of the submeshes, and a stage takes its steps from the
sequence of its own submesh. A value crosses from the stage that makes it in a placement that both
submeshes have: it stays split over axes of equal degree, and is whole along the others. Each device
that needs a value receives it from one device. All devices communicate in the order of the stages
and, within a stage, of the values that it makes, so no cycle of waiting devices is possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from parframe.dims import Dimensions
from parframe.errors import ParframeError
from parframe.graph import Operator, OperatorGraph, Ref
from parframe.mesh import Mesh, StagedMesh
from parframe.partitioning.cuts import Cut, bindings_of
from parframe.partitioning.graph_placement import PlacedGraph, place_graph
from parframe.partitioning.mesh_steps import MeshSteps, alphabetic_name, write_mesh_steps
from parframe.partitioning.notes import notes_of
from parframe.partitioning.stage_assignment import StageAssignment
from parframe.partitioning.stage_boundaries import Boundaries
from parframe.partitioning.stage_programs import StageCommunication, StageWriter
from parframe.partitioning.step_costs import works_of
from parframe.partitioning.step_sequence import LOCAL_SUFFIX
from parframe.plan import Device, Note, Plan, Program
from parframe.strategy import Placing

Key: TypeAlias = tuple[object, ...]
"""Identity of a cut on any mesh: its chain, each axis with its ratio, and its outer cut."""


@attrs.frozen
class SubmeshPlacement:
    """Graph placed on one submesh, with its steps assigned to stages."""

    steps: MeshSteps
    stages: StageAssignment


class StagedPlacement:
    """Graph placed on every submesh, with the values that cross between stages."""

    def __init__(
        self,
        graph: OperatorGraph,
        dimensions: Dimensions,
        placing: Placing,
        mesh: StagedMesh,
        cuts: Mapping[Mesh, tuple[Cut, ...]],
        replicate_missing: bool,
    ) -> None:
        self.graph = graph
        self.dimensions = dimensions
        self.placing = placing
        self.mesh = mesh
        self.cuts = cuts
        self.replicate_missing = replicate_missing
        self.axes = (mesh.stage_axis, *mesh.uneven_axes)
        self.first_calls = tuple(
            graph.layers[layer] for layer in placing.stage_starts if isinstance(layer, int)
        )
        self.works = works_of(graph, dimensions)
        self.home = {
            value: self.stage_of_call(number)
            for number, call in enumerate(graph.calls)
            for value in call.outputs
        }
        self.receivers: dict[str, frozenset[int]] = {}
        self.kept: dict[str, frozenset[Key]] = {}
        self.placements = self._settle()

    def stage_of_call(self, call: int) -> int:
        """Return the stage of a call."""
        return sum(first <= call for first in self.first_calls)

    def placement(self, stage: int) -> SubmeshPlacement:
        """Return the graph as it is placed on the submesh of a stage."""
        return self.placements[self.mesh.submeshes[stage]]

    def _settle(self) -> dict[Mesh, SubmeshPlacement]:
        """Place the graph until the values that cross are those that it was placed for."""
        while True:
            placements = {mesh: self._place(mesh) for mesh in self.cuts}
            crossing = self.crossing(placements)
            if all(stages <= self.receivers.get(v, frozenset()) for v, stages in crossing.items()):
                return placements
            for value, stages in crossing.items():
                self.receivers[value] = self.receivers.get(value, frozenset()) | stages
            cuts = {mesh: _output_cuts(own.steps.placed) for mesh, own in placements.items()}
            self.kept = {value: self._shared_cuts(value, cuts) for value in self.receivers}

    def _place(self, mesh: Mesh) -> SubmeshPlacement:
        """Place the graph on a submesh."""
        cuts = self.cuts[mesh]
        placed = place_graph(
            self.graph, self.dimensions, cuts, self.replicate_missing, self._boundaries(mesh)
        )
        steps = write_mesh_steps(self.graph, self.dimensions, mesh, cuts, placed)
        stages = StageAssignment(
            self.graph,
            placed,
            steps.model,
            self.axes,
            (1,) * len(self.mesh.submeshes),
            self.placing,
            self.works,
            last_returns_all=True,
        )
        return SubmeshPlacement(steps, stages)

    def _boundaries(self, mesh: Mesh) -> Boundaries:
        """Return the values that cross each stage boundary, with the cuts that they keep."""
        ranks = {_key(cut, mesh): cut.rank for cut in self.cuts[mesh]}
        return {
            first: {
                value: frozenset(ranks[key] for key in self.kept[value])
                for value, stages in self.receivers.items()
                if self.home[value] < stage <= max(stages) and mesh in self._meshes_of(value)
            }
            for stage, first in enumerate(self.first_calls, 1)
        }

    def _meshes_of(self, value: str) -> set[Mesh]:
        """Return the submeshes of the stages that make or receive a value."""
        return {self.mesh.submeshes[s] for s in (self.home[value], *self.receivers[value])}

    def crossing(self, placements: Mapping[Mesh, SubmeshPlacement]) -> dict[str, frozenset[int]]:
        """Return the values of the model that cross, with the stages that receive them."""
        crossing: dict[str, frozenset[int]] = {}
        for stage, mesh in enumerate(self.mesh.submeshes):
            for name in placements[mesh].stages.received(stage):
                value = LOCAL_SUFFIX.sub("", name)
                crossing[value] = crossing.get(value, frozenset()) | {stage}
        return crossing

    def _shared_cuts(
        self, value: str, cuts: Mapping[Mesh, Mapping[str, frozenset[int]]]
    ) -> frozenset[Key]:
        """Return the cuts of a value where it is made that all its receivers have, too."""
        home = self.mesh.submeshes[self.home[value]]
        keys = {_key(self.cuts[home][cut], home) for cut in cuts[home][value]}
        for mesh in self._meshes_of(value):
            keys &= {_key(cut, mesh) for cut in self.cuts[mesh]}
        return frozenset(keys)


def _key(cut: Cut, mesh: Mesh) -> Key:
    outer = _key(cut.outer, mesh) if cut.outer is not None else ()
    return cut.chain, tuple((axis, mesh.ratio((axis,))) for axis in cut.axes), outer


def _output_cuts(placed: PlacedGraph) -> dict[str, frozenset[int]]:
    """Return the cuts of every value that a call returns."""
    return {
        name: layout.cuts
        for call in placed.calls
        for name, (_, layout) in zip(
            call.call.outputs, placed.blocks[call.call.block].outputs, strict=True
        )
    }


def write_staged_plan(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placing: Placing,
    cuts: Mapping[Mesh, tuple[Cut, ...]],
    replicate_missing: bool,
) -> Plan:
    """Write the programs and devices of a plan whose stages have different degrees."""
    mesh = placing.mesh
    if not isinstance(mesh, StagedMesh):
        raise ParframeError("internal", str(mesh), "its stages have equal degrees", "report it")
    staged = StagedPlacement(graph, dimensions, placing, mesh, cuts, replicate_missing)
    writers = {
        submesh: StageWriter(placement.stages, dimensions)
        for submesh, placement in staged.placements.items()
    }
    communication = _write_communication(staged, writers)
    programs: dict[str, Program] = {}
    devices = []
    names: dict[object, str] = {}
    for rank in range(mesh.size):
        stage = mesh.stage(rank)
        steps = staged.placement(stage).steps
        local = rank - mesh.first_ranks[stage]
        shape = steps.shape_names[local]
        key = (stage, shape, _peers(communication[rank]))
        if key not in names:
            count = sum(program.stage == stage for program in programs.values())
            names[key] = name = f"stage{stage}_{alphabetic_name(count)}"
            programs[name] = writers[mesh.submeshes[stage]].program(
                name, stage, steps.sequences[shape], steps.shapes[shape], communication[rank]
            )
        devices.append(Device(rank, names[key], bindings_of(steps.cuts, steps.mesh, local)))
    return Plan(graph, placing, programs, tuple(devices), _notes(staged))


def _peers(communication: StageCommunication) -> tuple[tuple[str, object], ...]:
    """Return what a device communicates with whom; devices that do alike share a program."""
    sends = (operator for sends in communication.sends.values() for operator in sends)
    operators = (*communication.receives, *sends)
    return tuple((operator.name, operator.args["peer"]) for operator in operators)


def _write_communication(
    staged: StagedPlacement, writers: Mapping[Mesh, StageWriter]
) -> list[StageCommunication]:
    """Write what every device receives from others, and sends to them."""
    mesh = staged.mesh
    receives: list[list[Operator]] = [[] for _ in range(mesh.size)]
    sends: list[dict[str, tuple[Operator, ...]]] = [{} for _ in range(mesh.size)]
    crossing = staged.crossing(staged.placements)
    for value in sorted(crossing, key=lambda value: _order(staged, value)):
        home = staged.home[value]
        sent = staged.placement(home).steps.placed.crossing[value]
        for stage in sorted(crossing[value]):
            received = staged.placement(stage).steps.placed.crossing[value]
            first = mesh.first_ranks[stage]
            for rank in range(first, first + mesh.submeshes[stage].size):
                source = _source(mesh, rank, home)
                group = mesh.group(rank, staged.axes)
                there, here = group.index(source), group.index(rank)
                receiver = writers[mesh.submeshes[stage]]
                args: dict[str, Any] = {"peer": there}
                operator = receiver.operator("recv", received, args, (received,), tag=value)
                receives[rank].append(operator)
                args = {"input": Ref(sent), "peer": here}
                sender = writers[mesh.submeshes[home]]
                send = sender.operator("send", sent, args, (), here, tag=value)
                sends[source][sent] = (*sends[source].get(sent, ()), send)
    return [StageCommunication(tuple(own), out) for own, out in zip(receives, sends, strict=True)]


def _order(staged: StagedPlacement, value: str) -> tuple[int, int, int]:
    """Return the position of a value in the order in which all devices communicate."""
    home = staged.placement(staged.home[value])
    return staged.home[value], *home.stages.order(home.steps.placed.crossing[value])


def _source(mesh: StagedMesh, rank: int, stage: int) -> int:
    """Return the rank of an earlier stage from which a rank receives: the one at its position."""
    place = mesh.coordinates(rank)
    here, there = mesh.submeshes[place[mesh.stage_axis]], mesh.submeshes[stage]
    source = {name: place[name] * there.degree(name) // here.degree(name) for name in there.names}
    return mesh.first_ranks[stage] + there.rank(source)


def _notes(staged: StagedPlacement) -> tuple[Note, ...]:
    """Return the notes of all stages, equal ones once."""
    notes: dict[Note, None] = {}
    for mesh, placement in staged.placements.items():
        calls = [
            call
            for number, call in enumerate(staged.graph.calls)
            if staged.mesh.submeshes[staged.stage_of_call(number)] == mesh
        ]
        steps = placement.steps
        own = notes_of(staged.graph, staged.dimensions, steps.placed, steps.cuts, mesh, calls)
        notes.update(dict.fromkeys(own))
    return tuple(notes)
