"""Types of all values of one program, inferred operator by operator.

The inference stops at each communication operator and yields it with the device's input. The
caller, which infers the types of all programs, sends the type of the output back.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property

import attrs

from parframe.checking.checked_model import ModelOperator
from parframe.checking.distributed_forms import (
    find_distributed_form,
    moved_input_faults,
    with_distributed_form,
)
from parframe.checking.operator_inference import OperatorInference
from parframe.checking.shard_regions import align_shard
from parframe.checking.tensor_types import TensorType
from parframe.graph import Operator, Ref
from parframe.plan import COMMUNICATION_OPERATORS, communicates
from parframe.rules.communication import SHARD
from parframe.rules.pointwise import is_sum
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.rules.views import RESHAPES


@attrs.frozen
class CommunicationRequest:
    """Communication operator, and the type of the device's input.

    - ``value``: the type of its input; None if it has none, or an unknown one.
    - ``number``: the number of the input, for a distributed form: it asks for each moved input.
    - ``dims``: the dimensions along which a moved input is gathered.
    """

    operator: Operator
    value: TensorType | None
    number: int | None = None
    dims: frozenset[str] = frozenset()


Inference = Generator[CommunicationRequest, TensorType | None, None]


class ProgramTypes(OperatorInference):
    """Types of all values of one program."""

    @cached_property
    def origins(self) -> list[ModelOperator | None]:
        """Model's operator of each operator; None for communication operators."""
        return [
            self.model.origin(operator) if operator.target not in COMMUNICATION_OPERATORS else None
            for operator in self.program.operators
        ]

    def infer(self) -> Inference:
        """Infer the types of the program; yield a request for each communication."""
        for part in (*self.program.inputs, *self.program.parameters):
            self.add_part(part)
        operators, at = self.program.operators, 0
        while at < len(operators):
            operator, count = operators[at], 1
            if operator.target in DISTRIBUTED_FORMS:
                yield from self._infer_distributed(operator, self.origins[at])
            elif communicates(operator):
                source = operator.args.get("input")
                value = self.values.get(source.name) if isinstance(source, Ref) else None
                result = yield CommunicationRequest(operator, value)
                for name in operator.outputs:
                    self.set_type(operator, name, result)
            elif operator.target == SHARD.target:
                self.infer_shard(operator)
            else:
                count = self._infer_local(at)
            at += count

    def _infer_local(self, at: int) -> int:
        """Infer the types of the operator at a position; return the number of operators done."""
        operator = self.program.operators[at]
        origin = self.origins[at]
        if origin is None:
            self.add_finding("structure", operator, "belongs to no operator of the model")
            return self.leave_unknown((operator,))
        signature = origin.bound.signature
        has_addend = signature is not None and signature.addend is not None
        if signature is not None and is_sum(operator) and (has_addend or is_sum(origin.operator)):
            self.infer_sum(operator, origin)
            return 1
        if has_addend and operator.target in RESHAPES and origin.operator.target not in RESHAPES:
            self.infer_aligned_addend(operator, origin)
            return 1
        return self.infer_form(at, origin)

    def _infer_distributed(self, operator: Operator, origin: ModelOperator | None) -> Inference:
        """Infer the type of a distributed form, as if its moved inputs were gathered."""
        distributed = find_distributed_form(operator, origin)
        if origin is None or distributed is None:
            message = "belongs to no operator of the model with such a distributed form"
            self.add_finding("structure", operator, message)
            self.leave_unknown((operator,))
            return
        input_names, missing = self.find_inputs(origin, operator.inputs)
        input_types = self.types_of(input_names)
        own = {number: input_types[number] for number in distributed.moved}
        for number, value in own.items():
            input_types[number] = yield CommunicationRequest(
                operator, value, number, distributed.dims
            )
        if missing and all(self.values.get(name) is not None for name in operator.inputs):
            self.add_missing_input(operator, origin, operator.inputs, missing[0])
        operator_type = None
        if None not in input_types:
            operator_type = self.infer_type(operator, origin, input_types, False, (operator,))
        if operator_type is None:
            self.leave_unknown((operator,))
            return
        shards = {
            number: align_shard(value.shard, self.model.tensor_dims(origin, name)) or value.shard
            for number, name in enumerate(origin.operator.inputs)
            if (value := own.get(number, input_types[number])) is not None
        }
        moved = {number: shards[number] for number in distributed.moved}
        faults = moved_input_faults(origin, distributed, moved)
        for kind, message in (*operator_type.faults, *faults):
            self.add_finding(kind, operator, message, origin.module)
        operator_type = with_distributed_form(operator_type, operator, origin, distributed, shards)
        self.compare_form((operator,), origin, operator_type, input_names, False)
