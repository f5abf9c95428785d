"""Programs of pipeline stages.

Receives come first in a stage and sends follow what they send, both in the order in which the
values are made. So all devices communicate in one global order, and no cycle of waiting devices is
possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.dims import Dimensions
from parframe.graph import Operator, Ref, State, Tensor
from parframe.layout import region_of
from parframe.partitioning.actions import Placement
from parframe.partitioning.cuts import Shape
from parframe.partitioning.stage_assignment import StageAssignment
from parframe.partitioning.step_sequence import StepSequence
from parframe.plan import Part, Program, communicates


@attrs.frozen
class StageCommunication:
    """Communication operators of a device with other stages.

    Receives come before all else; ``sends`` has the operators that send a value once it is made.
    """

    receives: tuple[Operator, ...]
    sends: Mapping[str, tuple[Operator, ...]]


class StageWriter:
    """Writer of the programs of the stages of an assignment."""

    def __init__(self, stages: StageAssignment, dimensions: Dimensions) -> None:
        self.stages = stages
        self.graph = stages.graph
        self.placed = stages.placed
        self.dimensions = dimensions

    def program(
        self,
        name: str,
        stage: int,
        model: StepSequence,
        shape: Shape,
        communication: StageCommunication,
    ) -> Program:
        """Write the program of one stage for one shape of device."""
        operators = list(communication.receives)
        defined = [value for operator in operators for value in operator.outputs]
        for number in self.stages.steps_of_stage[stage]:
            for operator in model.steps[number].operators:
                operators.append(_tagged(operator))
                defined.extend(operator.outputs)
            if self.stages.stage_of_step[number] == stage:
                for value in model.steps[number].writes:
                    operators.extend(communication.sends.get(value, ()))
        used = {value for operator in operators for value in operator.inputs}
        outputs = tuple(
            self._part(local, whole, layout, shape)
            for whole, local, layout in self.placed.outputs
            if self.stages.output_stage(local) == stage
        )
        used |= {part.name for part in outputs}
        inputs = self._parts(self.graph.inputs, used, shape)
        parameters = self._parts(self.graph.parameters, used, shape)
        given = [part.name for part in (*inputs, *parameters)]
        known = set(defined)
        return Program(
            name=name,
            stage=stage,
            operators=tuple(operators),
            tensors={value: model.tensors[value] for value in (*given, *defined)},
            inputs=inputs,
            parameters=parameters,
            outputs=outputs,
            states=tuple(State(label, value) for label, value in model.states if value in known),
            layouts={value: model.layouts[value] for value in defined if value in model.layouts},
        )

    def _parts(
        self, tensors: Mapping[str, Tensor], used: set[str], shape: Shape
    ) -> tuple[Part, ...]:
        """Return the parts of the model's inputs or parameters that a stage uses."""
        return tuple(
            self._part(name, name, self.placed.stored[name], shape)
            for name in tensors
            if name in used
        )

    def _part(self, local: str, whole: str, layout: Placement, shape: Shape) -> Part:
        pieces = shape.of(layout.cuts)
        axes = self.dimensions.outer[whole]
        return Part(local, whole, tuple(region_of(axis, pieces, {}) for axis in axes))

    def communication(self, stage: int) -> StageCommunication:
        """Write what the devices of a stage receive from, and send to, those of other stages."""
        return StageCommunication(
            tuple(self._receive(value) for value in self.stages.received(stage)),
            {value: tuple(self._send(value)) for value in self.stages.sent(stage)},
        )

    def _send(self, value: str) -> Iterable[Operator]:
        """Write the operators that send a value to every stage that needs it."""
        if value in self.stages.broadcast:
            yield self.operator("broadcast", value, {"input": Ref(value), "root": 0}, ())
            return
        for stage in self.stages.receivers[value]:
            yield self.operator("send", value, {"input": Ref(value), "peer": stage}, (), stage)

    def _receive(self, value: str) -> Operator:
        """Write the operator that receives a value from the stage that makes it."""
        if value in self.stages.broadcast:
            return self.operator("broadcast", value, {"root": 0}, (value,))
        return self.operator("recv", value, {"peer": self.stages.home(value)}, (value,))

    def operator(
        self,
        kind: str,
        value: str,
        args: dict[str, Any],
        outputs: tuple[str, ...],
        to: int | None = None,
        tag: str = "",
    ) -> Operator:
        """Write a communication operator between stages.

        ``args`` are those but axes and tag. ``to`` is the stage or rank that receives, where the
        operator's name needs it; the tag begins with ``tag``, or else the value.
        """
        step = self.stages.steps[self.stages.makers[value]]
        maker = next(operator for operator in step.operators if value in operator.outputs)
        suffix = f".{to}" if to is not None else ""
        return Operator(
            name=f"{value}@{kind}{suffix}",
            target=f"parframe.{kind}",
            args={**args, "axes": self.stages.axes, "tag": f"{tag or value}@stage"},
            outputs=outputs,
            module=maker.module,
            source=maker.source,
            origin=maker.origin or maker.name,
        )


def _tagged(operator: Operator) -> Operator:
    """Return a collective with its output as the tag, which is the same on every device."""
    if communicates(operator):
        return attrs.evolve(operator, args={**operator.args, "tag": operator.outputs[0]})
    return operator
