"""Programs: the sequence of each shape of device, cut into stages, as the plan's programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.dims import Dimensions
from parframe.errors import ParframeError
from parframe.graph import BYTES, Operator, OperatorGraph, Ref, State, Tensor
from parframe.layout import Range, region
from parframe.partitioning.actions import Layout
from parframe.partitioning.blocks import PlacedGraph
from parframe.partitioning.cuts import STAGES, Cut, Shape, bindings_of, shape_of
from parframe.partitioning.notes import notes_of
from parframe.partitioning.place import NOMINAL, nominal_bytes
from parframe.partitioning.sequence import Sequence, Step, sequence
from parframe.partitioning.stages import Cost, cut_stages
from parframe.plan import COMMUNICATION, Device, Part, Plan, Program
from parframe.sizes import evaluate, symbols_of
from parframe.strategy import Placing

_CHEAP = 32
"""A value is computed again rather than sent if that takes at most so many elements for one."""


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
    shapes: dict[int, Shape] = {rank: shape_of(cuts, mesh, rank) for rank in range(mesh.size)}
    kinds: dict[str, Shape] = {}
    kind_of: dict[int, str] = {}
    seen: dict[tuple[tuple[tuple[str, Range], ...], ...], str] = {}
    for rank, shape in shapes.items():
        key = tuple(tuple(pieces.items()) for pieces in shape.pieces)
        if key not in seen:
            seen[key] = _letters(len(seen))
            kinds[seen[key]] = shape
        kind_of[rank] = seen[key]
    sequences = {
        kind: sequence(graph, dimensions, placed, cuts, shape) for kind, shape in kinds.items()
    }
    staging = _Staging(graph, placed, next(iter(sequences.values())), axis, count, placing)
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


class _Staging:
    """Which steps each stage has, what it computes again, and what it is sent."""

    def __init__(
        self,
        graph: OperatorGraph,
        placed: PlacedGraph,
        model: Sequence,
        axis: tuple[str, ...],
        count: int,
        placing: Placing,
    ) -> None:
        self.graph = graph
        self.placed = placed
        self.axis = axis
        self.count = count
        self.steps = model.steps
        self.given = {*graph.inputs, *graph.parameters}
        self.maker: dict[str, int] = {}
        for number, step in enumerate(model.steps):
            self.maker.update(dict.fromkeys(step.writes, number))
        weights = {n for n, p in graph.parameters.items() if p.kind == "parameter"}
        self.closures = _cheap(model, self.maker, self.given, weights)
        self.begins = (0, *self.cut(model, placing), len(self.steps))
        self.stage_of = [0] * len(self.steps)
        for stage in range(count):
            for number in range(self.begins[stage], self.begins[stage + 1]):
                self.stage_of[number] = stage
        self.members: list[list[int]] = [[] for _ in range(count)]
        self.sent: dict[str, list[int]] = {}
        for stage in range(count):
            self.fill(stage)
        self.broadcast = {
            value for value, stages in self.sent.items() if count > 2 and len(stages) == count - 1
        }

    def cut(self, model: Sequence, placing: Placing) -> tuple[int, ...]:
        """The first step of every stage but the first."""
        if self.count == 1:
            return ()
        layers = self.graph.layers
        if layers and self.count > len(layers):
            raise ParframeError(
                "partition",
                "axis " + ",".join(self.axis),
                f"{self.count} pipeline stages, but the model has {len(layers)} layers",
                f"use at most {len(layers)} stages",
            )
        fixed = [self.place_of(cut, layers) for cut in placing.cuts]
        costs = _costs(model, self.maker, self.closures, self.given, self.graph.output_names)
        return cut_stages(costs, self.count, sorted(set(fixed)))

    def place_of(self, cut: str | int, layers: tuple[int, ...]) -> int:
        """The first step of a user's cut: a layer's number or a module's path."""
        for number, step in enumerate(self.steps):
            if isinstance(cut, int):
                if 0 < cut < len(layers) and step.call == layers[cut]:
                    return number
            elif any(op.module == cut or op.module.startswith(f"{cut}.") for op in step.operators):
                return number
        if isinstance(cut, int):
            mend = f"layers are numbered from 1 to {len(layers) - 1}"
        else:
            mend = "give the path of a module as the model names it, or a layer's number"
        raise ParframeError("partition", f"cuts, {cut!r}", "no such place in the model", mend)

    def fill(self, stage: int) -> None:
        """The steps of a stage: its own, and cheap ones computed again."""
        own = list(range(self.begins[stage], self.begins[stage + 1]))
        inside = set(own)
        extra: set[int] = set()
        pending = [value for number in own for value in self.steps[number].reads]
        if stage == self.count - 1:
            pending.extend(name for _, name, _ in self.placed.outputs if name in self.maker)
            pending = [v for v in pending if v not in self.given]
        for value in pending:
            if value in self.given or self.maker[value] in inside:
                continue
            number = self.maker[value]
            if number in self.closures and stage != self.stage_of[number]:
                extra |= self.closures[number]
            elif value not in self.output_only(stage, value):
                stages = self.sent.setdefault(value, [])
                if stage not in stages:
                    stages.append(stage)
        self.members[stage] = sorted((extra - inside) | inside)

    def output_only(self, stage: int, value: str) -> set[str]:
        """Values that a stage does not read, only returns: they are returned where they are made."""
        names = {name for _, name, _ in self.placed.outputs}
        if value not in names:
            return set()
        own = range(self.begins[stage], self.begins[stage + 1])
        read = any(value in self.steps[number].reads for number in own)
        return set() if read else {value}

    def program(
        self,
        name: str,
        stage: int,
        model: Sequence,
        dimensions: Dimensions,
        shape: Shape,
    ) -> Program:
        """The program of one stage for one shape of device."""
        operators: list[Operator] = []
        tensors: dict[str, Tensor] = {}
        received = sorted(
            (value for value, stages in self.sent.items() if stage in stages),
            key=lambda value: (self.maker[value], value),
        )
        for value in received:
            tensors[value] = model.tensors[value]
            operators.append(self.receive(value))
        defined = set(received)
        for number in self.members[stage]:
            for operator in model.steps[number].operators:
                operators.append(_tagged(operator))
                defined.update(operator.outputs)
                for value in operator.outputs:
                    tensors[value] = model.tensors[value]
            if self.stage_of[number] == stage:
                for value in model.steps[number].writes:
                    operators.extend(self.send(value))
        used = {value for operator in operators for value in operator.inputs}
        outputs = self.outputs(stage, dimensions, shape)
        used |= {part.name for part in outputs}
        inputs = self.parts(self.graph.inputs, used, dimensions, shape)
        parameters = self.parts(self.graph.parameters, used, dimensions, shape)
        first = {part.name: model.tensors[part.name] for part in (*inputs, *parameters)}
        states = tuple(State(label, value) for label, value in model.states if value in defined)
        return Program(
            name=name,
            stage=stage,
            operators=tuple(operators),
            tensors={**first, **tensors},
            inputs=inputs,
            parameters=parameters,
            outputs=outputs,
            states=states,
        )

    def outputs(self, stage: int, dimensions: Dimensions, shape: Shape) -> tuple[Part, ...]:
        """The model's outputs that a stage gives."""
        result = []
        for name, local, layout in self.placed.outputs:
            home = self.stage_of[self.maker[local]] if local in self.maker else 0
            if home == stage:
                result.append(_part(local, name, layout, dimensions, shape))
        return tuple(result)

    def parts(
        self,
        tensors: Mapping[str, Tensor],
        used: set[str],
        dimensions: Dimensions,
        shape: Shape,
    ) -> tuple[Part, ...]:
        """The model's inputs or parameters that a stage uses."""
        return tuple(
            _part(name, name, self.placed.held[name], dimensions, shape)
            for name in tensors
            if name in used
        )

    def send(self, value: str) -> Iterable[Operator]:
        """Send a value to every stage that needs it."""
        stages = self.sent.get(value, [])
        if value in self.broadcast:
            yield self.communicate("broadcast", value, {"input": Ref(value), "root": 0}, ())
            return
        for stage in stages:
            yield self.communicate("send", value, {"input": Ref(value), "peer": stage}, (), stage)

    def receive(self, value: str) -> Operator:
        """Receive a value from the stage that makes it."""
        if value in self.broadcast:
            return self.communicate("broadcast", value, {"root": 0}, (value,))
        peer = self.stage_of[self.maker[value]]
        return self.communicate("recv", value, {"peer": peer}, (value,), None)

    def communicate(
        self,
        kind: str,
        value: str,
        args: dict[str, Any],
        outputs: tuple[str, ...],
        to: int | None = None,
    ) -> Operator:
        """A communication between stages."""
        made = next(op for op in self.steps[self.maker[value]].operators if value in op.outputs)
        suffix = f".{to}" if to is not None else ""
        return Operator(
            name=f"{value}@{kind}{suffix}",
            target=f"parframe.{kind}",
            args={**args, "axes": self.axis, "tag": f"{value}@stage"},
            outputs=outputs,
            module=made.module,
            source=made.source,
            origin=made.origin or made.name,
        )


def _tagged(operator: Operator) -> Operator:
    """Collectives are tagged by what they make, which is the same on every device."""
    if operator.target in COMMUNICATION:
        return attrs.evolve(operator, args={**operator.args, "tag": operator.outputs[0]})
    return operator


def _part(local: str, whole: str, layout: Layout, dimensions: Dimensions, shape: Shape) -> Part:
    pieces = shape.of(layout.cuts)
    return Part(local, whole, tuple(region(axis, pieces, {}) for axis in dimensions.outer[whole]))


def _elements(tensor: Tensor) -> float:
    return nominal_bytes(tensor) / BYTES[tensor.dtype]


def _cheap(
    model: Sequence, maker: Mapping[str, int], given: set[str], weights: set[str]
) -> dict[int, frozenset[int]]:
    """Steps that are cheaper to do again than to send, each with all that it takes: those of
    little work on inputs and buffers alone (positions, rotary tables)."""
    found: dict[int, frozenset[int]] = {}
    for number, step in enumerate(model.steps):
        if any(operator.target in COMMUNICATION for operator in step.operators):
            continue
        if any(value in weights for value in step.reads):
            continue
        if any(value in weights for value in step.reads):
            continue
        needed = {maker[value] for value in step.reads if value not in given}
        if not all(other in found for other in needed):
            continue
        closure = frozenset({number}).union(*(found[other] for other in needed))
        if len(closure) > 4 * _CHEAP:
            continue
        size = max(_elements(model.tensors[value]) for value in step.writes)
        work = sum(
            _work(operator, model.tensors)
            for other in closure
            for operator in model.steps[other].operators
        )
        if work <= _CHEAP * max(size, NOMINAL):
            found[number] = closure
    return found


def _work(operator: Operator, tensors: Mapping[str, Tensor]) -> float:
    """Multiplications of an operator at nominal sizes: its largest tensor, times what a product
    contracts."""
    sizes = [_elements(tensors[v]) for v in (*operator.inputs, *operator.outputs)]
    largest = max(sizes, default=0.0)
    if len(operator.inputs) > 1:
        out = max((_elements(tensors[v]) for v in operator.outputs), default=0.0)
        ins = sorted((_elements(tensors[v]) for v in operator.inputs), reverse=True)[:2]
        if out and ins[0] * ins[1] > out * largest:
            return max(largest, math.sqrt(ins[0] * ins[1] * out))
    return largest


def _costs(
    model: Sequence,
    maker: Mapping[str, int],
    closures: Mapping[int, frozenset[int]],
    given: set[str],
    outputs: tuple[str, ...],
) -> list[Cost]:
    """What every step costs, and what would cross if a stage ended after it."""
    last: dict[str, int] = {}
    for number, step in enumerate(model.steps):
        for value in step.reads:
            last[value] = number
    crossing = [0.0] * (len(model.steps) + 1)
    for value, number in maker.items():
        if number in closures or last.get(value, number) <= number:
            continue
        size = nominal_bytes(model.tensors[value])
        crossing[number] += size
        crossing[last[value]] -= size
    running = 0.0
    costs = []
    held: set[str] = set()
    for number, step in enumerate(model.steps):
        running += crossing[number]
        weights = {v for v in step.reads if v in given} - held
        held |= weights
        costs.append(
            Cost(
                flops=sum(_work(operator, model.tensors) for operator in step.operators)
                if number not in closures
                else 0.0,
                weight_bytes=sum(nominal_bytes(model.tensors[v]) for v in weights),
                crossing=running,
            )
        )
    return costs


__all__ = ["evaluate", "symbols_of", "write_plan"]
