"""Plans of which the stages lie on different meshes.

The graph is placed on each of the meshes as a whole, and a stage takes its steps from the sequence
of its own. Values cross from the stage that makes them in a layout that both meshes have: split
over axes of the same degree as they lie there, whole along the others. Each device that needs one
receives it from one device; all communicate in the order of the stages and, within one, of what
they make, so none can wait in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import attrs

from parframe.dims import Dimensions
from parframe.errors import ParframeError
from parframe.graph import Operator, OperatorGraph, Ref
from parframe.mesh import Mesh, StagedMesh
from parframe.partitioning.cuts import Cut, bindings_of
from parframe.partitioning.graph_placement import PlacedGraph, place_graph
from parframe.partitioning.notes import notes_of
from parframe.partitioning.regular_plan import Laid, lay_out, letters
from parframe.partitioning.stage_assignment import Lines, Staging
from parframe.partitioning.stage_boundaries import Borders
from parframe.partitioning.step_costs import works_of
from parframe.plan import Device, Note, Plan, Program
from parframe.strategy import Placing

_BASE = re.compile(r"[@~].*$", re.DOTALL)

Key: TypeAlias = tuple[object, ...]
"""What a cut is on any mesh: the chain, every axis with the ratio along it, the outer cut."""


@attrs.frozen
class View:
    """The graph as the devices of one mesh would have it, and the stages of it."""

    laid: Laid
    staging: Staging


class _Stages:
    """A placing on a mesh of stages, and what of the graph each stage has."""

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
        self.across = (mesh.stage_axis, *mesh.uneven_axes)
        self.starts = tuple(
            graph.layers[cut] for cut in placing.stage_starts if isinstance(cut, int)
        )
        self.works = works_of(graph, dimensions)
        self.home = {
            value: self.stage_of(number)
            for number, call in enumerate(graph.calls)
            for value in call.outputs
        }
        self.readers: dict[str, frozenset[int]] = {}
        self.kept: dict[str, frozenset[Key]] = {}
        self.views = self.settled()

    def stage_of(self, call: int) -> int:
        """The stage of a call."""
        return sum(start <= call for start in self.starts)

    def view(self, stage: int) -> View:
        """The graph as the devices of a stage have it."""
        return self.views[self.mesh.submeshes[stage]]

    def settled(self) -> dict[Mesh, View]:
        """The views on the graph in which just those values cross that are known to."""
        while True:
            views = {mesh: self.seen(mesh) for mesh in self.cuts}
            crossing = self.crossing(views)
            if all(stages <= self.readers.get(v, frozenset()) for v, stages in crossing.items()):
                return views
            for value, stages in crossing.items():
                self.readers[value] = self.readers.get(value, frozenset()) | stages
            natural = {mesh: _layouts(view.laid.placed) for mesh, view in views.items()}
            self.kept = {value: self.shared(value, natural) for value in self.readers}

    def seen(self, mesh: Mesh) -> View:
        """The graph as the devices of a mesh would have it."""
        cuts = self.cuts[mesh]
        placed = place_graph(
            self.graph, self.dimensions, cuts, self.replicate_missing, self.borders(mesh)
        )
        laid = lay_out(self.graph, self.dimensions, mesh, cuts, placed)
        shares = (1,) * len(self.mesh.submeshes)
        staging = Staging(
            self.graph, placed, laid.model, self.across, shares, self.placing, self.works, last=True
        )
        return View(laid, staging)

    def borders(self, mesh: Mesh) -> Borders:
        """The values that cross each border, and the cuts of a mesh that they keep."""
        keys = {_key(cut, mesh): cut.rank for cut in self.cuts[mesh]}
        return {
            start: {
                value: frozenset(keys[key] for key in self.kept[value])
                for value, stages in self.readers.items()
                if self.home[value] < stage <= max(stages) and mesh in self.meshes(value)
            }
            for stage, start in enumerate(self.starts, 1)
        }

    def meshes(self, value: str) -> set[Mesh]:
        """The meshes of the stages that make or take a value."""
        return {self.mesh.submeshes[s] for s in (self.home[value], *self.readers[value])}

    def crossing(self, views: Mapping[Mesh, View]) -> dict[str, frozenset[int]]:
        """The model's values that stages are sent, with the stages."""
        found: dict[str, frozenset[int]] = {}
        for stage, mesh in enumerate(self.mesh.submeshes):
            for name in views[mesh].staging.received(stage):
                value = _BASE.sub("", name)
                found[value] = found.get(value, frozenset()) | {stage}
        return found

    def shared(
        self, value: str, natural: Mapping[Mesh, Mapping[str, frozenset[int]]]
    ) -> frozenset[Key]:
        """The cuts in which a value lies where it is made, as far as all who take it have them."""
        home = self.mesh.submeshes[self.home[value]]
        keys = {_key(self.cuts[home][cut], home) for cut in natural[home][value]}
        for mesh in self.meshes(value):
            keys &= {_key(cut, mesh) for cut in self.cuts[mesh]}
        return frozenset(keys)


def _key(cut: Cut, mesh: Mesh) -> Key:
    outer = _key(cut.outer, mesh) if cut.outer is not None else ()
    return cut.chain, tuple((axis, mesh.ratio((axis,))) for axis in cut.axes), outer


def _layouts(placed: PlacedGraph) -> dict[str, frozenset[int]]:
    """The cuts of every value that a call gives."""
    return {
        name: layout.cuts
        for call in placed.calls
        for name, (_, layout) in zip(
            call.call.outputs, placed.blocks[call.call.block].outputs, strict=True
        )
    }


def write_staged(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placing: Placing,
    cuts: Mapping[Mesh, tuple[Cut, ...]],
    replicate_missing: bool,
) -> Plan:
    """Write every program and device of a plan on a mesh of stages.

    Parameters
    ----------
    graph, dimensions, placing
        The model, and where its dimensions lie.
    cuts
        For each of the different meshes.
    replicate_missing
        Whether an operator without a rule is computed whole.
    """
    mesh = placing.mesh
    if not isinstance(mesh, StagedMesh):
        raise ParframeError("internal", str(mesh), "has no stages of its own", "report it")
    stages = _Stages(graph, dimensions, placing, mesh, cuts, replicate_missing)
    lines = _lines(stages)
    programs: dict[str, Program] = {}
    devices = []
    names: dict[object, str] = {}
    for rank in range(mesh.size):
        stage = mesh.stage(rank)
        laid, staging = stages.view(stage).laid, stages.view(stage).staging
        local = rank - mesh.first_ranks[stage]
        kind = laid.kind_of[local]
        role = (stage, kind, _peers(lines[rank]))
        if role not in names:
            names[role] = name = f"stage{stage}_{letters(_count(programs, stage))}"
            programs[name] = staging.program(
                name, stage, laid.sequences[kind], dimensions, laid.kinds[kind], lines[rank]
            )
        devices.append(Device(rank, names[role], bindings_of(laid.cuts, laid.mesh, local)))
    return Plan(graph, placing, programs, tuple(devices), _notes(stages))


def _count(programs: Mapping[str, Program], stage: int) -> int:
    return sum(program.stage == stage for program in programs.values())


def _peers(lines: Lines) -> tuple[tuple[str, object], ...]:
    """Whom a device communicates with, over what: it and others that do alike share a program."""
    operators = (*lines.receives, *(o for sends in lines.sends.values() for o in sends))
    return tuple((operator.name, operator.args["peer"]) for operator in operators)


def _lines(stages: _Stages) -> list[Lines]:
    """What every device receives from others, and sends to them."""
    mesh = stages.mesh
    receives: list[list[Operator]] = [[] for _ in range(mesh.size)]
    sends: list[dict[str, tuple[Operator, ...]]] = [{} for _ in range(mesh.size)]
    crossing = stages.crossing(stages.views)
    for value in sorted(crossing, key=lambda value: _order(stages, value)):
        home = stages.view(stages.home[value])
        sent = home.laid.placed.crossing[value]
        for stage in sorted(crossing[value]):
            view = stages.view(stage)
            received = view.laid.placed.crossing[value]
            first = mesh.first_ranks[stage]
            for rank in range(first, first + mesh.submeshes[stage].size):
                source = _source(mesh, rank, stages.home[value])
                group = mesh.group(rank, stages.across)
                there, here = group.index(source), group.index(rank)
                receive = view.staging.communicate(
                    "recv", received, {"peer": there}, (received,), tag=value
                )
                receives[rank].append(receive)
                args = {"input": Ref(sent), "peer": here}
                send = home.staging.communicate("send", sent, args, (), here, tag=value)
                sends[source][sent] = (*sends[source].get(sent, ()), send)
    return [Lines(tuple(own), out) for own, out in zip(receives, sends, strict=True)]


def _order(stages: _Stages, value: str) -> tuple[int, int, int]:
    """Where a value comes in the order in which all devices communicate."""
    home = stages.view(stages.home[value])
    return stages.home[value], *home.staging.order(home.laid.placed.crossing[value])


def _source(mesh: StagedMesh, rank: int, stage: int) -> int:
    """The rank of an earlier stage from which a rank receives: at its place, as far as it goes."""
    place = mesh.coordinates(rank)
    here, there = mesh.submeshes[place[mesh.stage_axis]], mesh.submeshes[stage]
    source = {name: place[name] * there.degree(name) // here.degree(name) for name in there.names}
    return mesh.first_ranks[stage] + there.rank(source)


def _notes(stages: _Stages) -> tuple[Note, ...]:
    """The remarks on what each stage has, those that are the same once."""
    found: dict[Note, None] = {}
    for mesh, view in stages.views.items():
        calls = [
            call
            for number, call in enumerate(stages.graph.calls)
            if stages.mesh.submeshes[stages.stage_of(number)] == mesh
        ]
        laid = view.laid
        notes = notes_of(stages.graph, stages.dimensions, laid.placed, laid.cuts, mesh, calls)
        found.update(dict.fromkeys(notes))
    return tuple(found)
