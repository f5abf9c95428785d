"""Types of the values that a program's operators compute, compared with the model's operators."""

from __future__ import annotations

from collections.abc import Sequence

from parframe.checking.checked_model import ModelOperator
from parframe.checking.form_comparison import FormComparison
from parframe.checking.operator_types import OperatorType, infer_operator
from parframe.checking.shard_regions import align_shard
from parframe.checking.tensor_types import PartialTerm, TensorShard, TensorType, make_shard, term_id
from parframe.checking.value_types import ValueTypes
from parframe.graph import Operator
from parframe.plan import communicates
from parframe.rules.communication import PLAN_OPERATORS
from parframe.sizes import Size

_LONGEST_FORM = 64
"""Most operators that one of the model's operators may have as its local form."""


class OperatorInference(ValueTypes):
    """Types of a program's values, and how its operators compute them."""

    def infer_form(self, at: int, origin: ModelOperator) -> int:
        """Infer the types of a form of one of the model's operators; return its length.

        The form begins at position ``at`` of the program.
        """
        run = self._operators_with_origin(at)
        operator = run[0]
        computed = {name for part in run for name in part.outputs}
        outside = [name for part in run for name in part.inputs if name not in computed]
        if any(self.values.get(name) is None for name in outside):
            return self.leave_unknown(run)
        signature = origin.bound.signature
        input_names, missing = self.find_inputs(origin, outside)
        addend_omitted = (
            signature is not None and signature.addend is not None and missing == [signature.addend]
        )
        if missing and not addend_omitted:
            self.add_missing_input(operator, origin, outside, missing[0])
            return self.leave_unknown(run)
        input_types = self.types_of(input_names)
        operator_type = self.infer_type(operator, origin, input_types, addend_omitted, run)
        if operator_type is None:
            return self.leave_unknown(run)
        for kind, message in operator_type.faults:
            self.add_finding(kind, operator, message, origin.module)
        return self.compare_form(run, origin, operator_type, input_names, addend_omitted)

    def _operators_with_origin(self, at: int) -> tuple[Operator, ...]:
        """Return the operators from a position on that have the same origin."""
        operators = self.program.operators
        stop = at
        while (
            stop < len(operators)
            and not communicates(operators[stop])
            and operators[stop].target not in PLAN_OPERATORS
            and (operators[stop].origin or operators[stop].name)
            == (operators[at].origin or operators[at].name)
            and stop - at < _LONGEST_FORM
        ):
            stop += 1
        return tuple(operators[at:stop])

    def find_inputs(
        self, origin: ModelOperator, outside: Sequence[str]
    ) -> tuple[list[str | None], list[int]]:
        """Return the device's name of each input of a model's operator, and the missing ones."""
        unused = list(outside)
        input_names: list[str | None] = []
        for own in origin.operator.inputs:
            term = self.model.term_ids[origin.names[own]]
            first_uses = [name for name in unused if self.sum_id(name) == term]
            all_uses = [name for name in outside if self.sum_id(name) == term]
            if first_uses:
                unused.remove(first_uses[0])
            input_names.append(next(iter((*first_uses, *all_uses)), None))
        return input_names, [number for number, name in enumerate(input_names) if name is None]

    def add_missing_input(
        self, operator: Operator, origin: ModelOperator, outside: Sequence[str], missing: int
    ) -> None:
        """Add a finding for an operator that takes another value than the model's."""
        own = origin.operator.inputs[missing]
        labels = ", ".join(self.label(name) for name in outside) or "nothing"
        message = f"takes {labels} instead of {origin.names[own]!r}"
        self.add_finding("type", operator, message)

    def types_of(self, names: Sequence[str | None]) -> list[TensorType | None]:
        """Return the types of some values; None for an absent or unknown one."""
        return [self.values.get(name) if name is not None else None for name in names]

    def infer_type(
        self,
        operator: Operator,
        origin: ModelOperator,
        input_types: Sequence[TensorType | None],
        addend_omitted: bool,
        run: tuple[Operator, ...],
    ) -> OperatorType | None:
        """Return the type of an operator, from the cache where a call had the same inputs."""
        shards: list[TensorShard] = []
        partial_terms: list[tuple[PartialTerm, ...]] = []
        for own, tensor_type in zip(origin.operator.inputs, input_types, strict=True):
            tensor_dims = self.model.tensor_dims(origin, own)
            if tensor_type is None:
                shards.append(make_shard(tensor_dims, [{}] * len(tensor_dims)))
                partial_terms.append(())
                continue
            aligned = align_shard(tensor_type.shard, tensor_dims)
            if aligned is None:
                message = f"{tensor_type.label!r} does not have the dimensions of {own!r}"
                self.add_finding("type", operator, message)
                return None
            shards.append(aligned)
            partial_terms.append(_without_names(tensor_type.partial_terms))
        signature = origin.bound.signature
        recorded_shapes = (
            self._recorded_shapes(run, origin) if signature is not None and signature.free else ()
        )
        key = (
            origin.block.name, origin.operator.name, addend_omitted, tuple(map(id, shards)),
            tuple(partial_terms), recorded_shapes, self.program.name if recorded_shapes else "",
        )  # fmt: skip
        if key not in self.operator_types:
            self.operator_types[key] = infer_operator(
                origin.bound,
                self.model.dimensions.tensor_dims[origin.block.name],
                tuple(shards),
                tuple(partial_terms),
                recorded_shapes,
                addend_omitted,
                self.ranges,
            )
        return self.operator_types[key]

    def _recorded_shapes(
        self, run: tuple[Operator, ...], origin: ModelOperator
    ) -> tuple[tuple[Size, ...], ...]:
        """Return the recorded shapes of the operator's outputs."""
        names = [name for operator in run for name in operator.outputs]
        names = names[len(names) - len(origin.operator.outputs) :]
        tensors = self.program.tensors
        return tuple(tensors[name].shape if name in tensors else () for name in names)

    def compare_form(
        self,
        run: tuple[Operator, ...],
        origin: ModelOperator,
        operator_type: OperatorType,
        input_names: Sequence[str | None],
        addend_omitted: bool,
    ) -> int:
        """Compare operators with the expected forms, set their types; return their number."""
        forms = FormComparison(
            origin, operator_type, input_names, self.program.tensors, self.same_size
        )
        count, names, fault = forms.match(run)
        if fault is not None:
            operator, kind, message = fault
            self.add_finding(kind, operator, message, origin.module)
        for number, (own, name) in enumerate(zip(origin.operator.outputs, names, strict=True)):
            outer = origin.names[own]
            term = term_id(outer) if addend_omitted else self.model.term_ids[outer]
            shard = operator_type.outputs[number]
            if operator_type.contributions:
                partial = PartialTerm(
                    term, outer, operator_type.reduction, operator_type.contributions
                )
                tensor_type = TensorType(shard, 0, (partial,), outer)
            else:
                tensor_type = TensorType(shard, term, (), outer)
            self.set_type(run[min(count, len(run)) - 1], name, tensor_type)
            recorded = self.program.tensors.get(name)
            expected = origin.block.tensors[own].dtype
            if recorded is not None and recorded.dtype != expected:
                self.add_finding("shape", run[0], f"{name!r} is {recorded.dtype}, not {expected}")
        return count

    def leave_unknown(self, run: tuple[Operator, ...]) -> int:
        """Leave the types of operators' outputs unknown; return the number of operators."""
        for operator in run:
            self.values.update(dict.fromkeys(operator.outputs))
        return len(run)


def _without_names(partial_terms: tuple[PartialTerm, ...]) -> tuple[PartialTerm, ...]:
    """Return partial terms without the values' names, so that those of all layers are equal."""
    return tuple(PartialTerm(0, "", term.reduction, term.contributions) for term in partial_terms)
