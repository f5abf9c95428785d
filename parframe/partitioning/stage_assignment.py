"""Which steps each pipeline stage has, what it computes again, and what it is sent.

Receives come first in a stage and sends follow what they send, both in the order in which the
values are made; so all devices communicate in one global order, and none can wait in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.dims import Dimensions
from parframe.graph import Operator, OperatorGraph, Ref, State, Tensor
from parframe.layout import region_of
from parframe.partitioning.actions import Layout
from parframe.partitioning.cuts import Shape
from parframe.partitioning.graph_placement import PlacedGraph
from parframe.partitioning.stage_balance import Course, cut_stages
from parframe.partitioning.stage_rules import (
    check_stage_count,
    find_stage_inputs,
    unknown_stage_start,
    uses_broadcast,
)
from parframe.partitioning.step_costs import cheap_steps, step_costs
from parframe.partitioning.step_sequence import Sequence
from parframe.plan import COMMUNICATION, Part, Program
from parframe.strategy import Placing


@attrs.frozen
class Lines:
    """What a device receives before all else, and what it sends once it has made a value."""

    receives: tuple[Operator, ...]
    sends: Mapping[str, tuple[Operator, ...]]


class Staging:
    """Which steps each stage has, what it computes again, and what it is sent.

    ``axis`` are the mesh axes along which stages communicate, ``shares`` tell in which ratio they
    are to be heavy; ``last`` lets the last stage give all that the model computes and returns,
    not the stage that makes it.
    """

    def __init__(
        self,
        graph: OperatorGraph,
        placed: PlacedGraph,
        model: Sequence,
        axis: tuple[str, ...],
        shares: tuple[int, ...],
        placing: Placing,
        works: Mapping[str, float],
        last: bool = False,
    ) -> None:
        self.graph = graph
        self.works = works
        self.placed = placed
        self.axis = axis
        self.shares = shares
        self.count = count = len(shares)
        self.last = last
        self.steps = model.steps
        self.given = {*graph.inputs, *graph.parameters}
        self.maker: dict[str, int] = {}
        for number, step in enumerate(model.steps):
            self.maker.update(dict.fromkeys(step.writes, number))
        weights = {n for n, p in graph.parameters.items() if p.kind == "parameter"}
        self.closures = cheap_steps(model, self.maker, self.given, weights, works)
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
            value for value, stages in self.sent.items() if uses_broadcast(len(stages), count)
        }

    def cut(self, model: Sequence, placing: Placing) -> tuple[int, ...]:
        """The first step of every stage but the first."""
        if self.count == 1:
            return ()
        layers = self.graph.layers
        check_stage_count(self.axis, self.count, len(layers))
        fixed = [self.place_of(cut, layers) for cut in placing.stage_starts]
        costs = step_costs(model, self.maker, self.closures, self.given, self.works)
        return cut_stages(Course.of(costs), self.shares, sorted(set(fixed)))

    def place_of(self, cut: str | int, layers: tuple[int, ...]) -> int:
        """The first step of a user's cut: a layer's number or a module's path."""
        for number, step in enumerate(self.steps):
            if isinstance(cut, int):
                if 0 < cut < len(layers) and step.call == layers[cut]:
                    return number
            elif any(op.module == cut or op.module.startswith(f"{cut}.") for op in step.operators):
                return number
        raise unknown_stage_start(cut, len(layers))

    def fill(self, stage: int) -> None:
        """The steps of a stage: its own, and cheap ones computed again."""
        own = list(range(self.begins[stage], self.begins[stage + 1]))
        inside = set(own)
        pending = [value for number in own for value in self.steps[number].reads]
        if stage == self.count - 1:
            pending.extend(name for _, name, _ in self.placed.outputs if name in self.maker)
            pending = [v for v in pending if v not in self.given]
        inputs = find_stage_inputs(pending, inside, self.given, self.maker, self.closures)
        for value in inputs.received:
            if value not in self.output_only(stage, value):
                self.sent.setdefault(value, []).append(stage)
        self.members[stage] = sorted(inputs.recomputed | inside)

    def output_only(self, stage: int, value: str) -> set[str]:
        """Values that a stage only returns: they are returned where they are made."""
        names = {name for _, name, _ in self.placed.outputs}
        if value not in names or self.last:
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
        lines: Lines,
    ) -> Program:
        """The program of one stage for one shape of device."""
        operators = list(lines.receives)
        defined = {value for operator in lines.receives for value in operator.outputs}
        tensors = {value: model.tensors[value] for o in lines.receives for value in o.outputs}
        for number in self.members[stage]:
            for operator in model.steps[number].operators:
                operators.append(_tagged(operator))
                defined.update(operator.outputs)
                for value in operator.outputs:
                    tensors[value] = model.tensors[value]
            if self.stage_of[number] == stage:
                for value in model.steps[number].writes:
                    operators.extend(lines.sends.get(value, ()))
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
            layouts={name: model.lies[name] for name in tensors if name in model.lies},
        )

    def outputs(self, stage: int, dimensions: Dimensions, shape: Shape) -> tuple[Part, ...]:
        """The model's outputs that a stage gives."""
        result = []
        for name, local, layout in self.placed.outputs:
            home = self.stage_of[self.maker[local]] if local in self.maker else 0
            if self.last and local in self.maker:
                home = self.count - 1
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

    def received(self, stage: int) -> list[str]:
        """The values that a stage is sent, in the order in which they are made."""
        found = (value for value, stages in self.sent.items() if stage in stages)
        return sorted(found, key=self.order)

    def order(self, value: str) -> tuple[int, int]:
        """When a value is made: its step, and its place in what that makes."""
        number = self.maker[value]
        return number, self.steps[number].writes.index(value)

    def lines(self, stage: int) -> Lines:
        """What the devices of a stage receive from those at their place in others, and send."""
        made = (v for v in self.sent if self.stage_of[self.maker[v]] == stage)
        return Lines(
            tuple(self.receive(value) for value in self.received(stage)),
            {value: tuple(self.send(value)) for value in made},
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
        tag: str = "",
    ) -> Operator:
        """A communication between stages."""
        made = next(op for op in self.steps[self.maker[value]].operators if value in op.outputs)
        suffix = f".{to}" if to is not None else ""
        return Operator(
            name=f"{value}@{kind}{suffix}",
            target=f"parframe.{kind}",
            args={**args, "axes": self.axis, "tag": f"{tag or value}@stage"},
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
    return Part(
        local, whole, tuple(region_of(axis, pieces, {}) for axis in dimensions.outer[whole])
    )
