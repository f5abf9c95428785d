"""The model as the checks see it: the terms of every value, and the rule of every operator.

Programs may have the parts of an operator that its rule decomposes (``call/op.part``). These are
added to the operator's block by the table of rules, and everything is named again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from parframe.checking.tensor_types import sum_ids, term_id
from parframe.dims import BoundOperator, Dimensions, name_dimensions
from parframe.dims.halves import halve_dimensions
from parframe.dims.naming import operator_site
from parframe.graph import Block, Call, Operator, OperatorGraph, Tensor
from parframe.layout import TensorDim
from parframe.plan import Program
from parframe.rules import Rule
from parframe.rules.pointwise import is_sum
from parframe.rules.signature import spell
from parframe.rules.table import rule_for


@attrs.frozen
class ModelOperator:
    """Operator of the model: its call, its block, the block's operator, and its rule."""

    call: Call
    block: Block
    operator: Operator
    bound: BoundOperator
    names: Mapping[str, str] = attrs.field(repr=False)

    @property
    def module(self) -> str:
        """Path of the module that it came from."""
        last = self.call.name.rsplit(".", 1)[-1]
        return self.operator.module.replace("*", last) if self.call.name else self.operator.module


class CheckedModel:
    """Model that a plan is checked against."""

    def __init__(
        self,
        graph: OperatorGraph,
        programs: Iterable[Program],
        rules: Iterable[Rule] = (),
        mirrored: Iterable[str] = (),
    ) -> None:
        extra = {rule.target: rule for rule in rules}
        origins = {op.origin or op.name for program in programs for op in program.operators}
        self.graph = _decompose_operators(graph, origins, extra)
        self.dimensions: Dimensions = halve_dimensions(
            name_dimensions(self.graph, extra.values()), mirrored
        )
        self.outer = self.dimensions.outer
        self.names = {
            call.name: call.names(self.graph.blocks[call.block]) for call in self.graph.calls
        }
        self.operators = {
            block.name: {operator.name: operator for operator in block.operators}
            for block in self.graph.blocks.values()
        }
        self.calls = {call.name: call for call in self.graph.calls}
        self.term_ids: dict[str, int] = {}
        self._identify_terms()

    def origin(self, operator: Operator) -> ModelOperator | None:
        """Return the model's operator that a device's operator is part of, if any."""
        found = operator.origin or operator.name
        prefix, slash, own = found.rpartition("/")
        call = self.calls.get(prefix if slash else "")
        if call is None or own not in self.operators[call.block]:
            return None
        block = self.graph.blocks[call.block]
        bound = self.dimensions.bound[block.name][own]
        model_operator = self.operators[block.name][own]
        return ModelOperator(call, block, model_operator, bound, self.names[call.name])

    def tensor_dims(self, origin: ModelOperator, own: str) -> tuple[TensorDim, ...]:
        """Return the tensor dims of a block's value, as factors."""
        return self.dimensions.tensor_dims[origin.block.name][own]

    def _identify_terms(self) -> None:
        """Write every value as a sum of terms: sums and addends are split, all else is one term."""
        for outer in (*self.graph.inputs, *self.graph.parameters):
            self.term_ids[outer] = term_id(outer)
        for call in self.graph.calls:
            block = self.graph.blocks[call.block]
            names = self.names[call.name]
            bound = self.dimensions.bound[block.name]
            for operator in block.operators:
                inputs = [self.term_ids[names[value]] for value in operator.inputs]
                outputs = [names[value] for value in operator.outputs]
                if outputs[0] in self.term_ids:
                    continue
                if is_sum(operator):
                    self.term_ids[outputs[0]] = sum_ids(*inputs)
                    continue
                for output in outputs:
                    self.term_ids[output] = term_id(output)
                signature = bound[operator.name].signature
                if signature is not None and signature.addend is not None:
                    addend = aligned_term_id(
                        inputs[signature.addend], addend_dims(bound[operator.name])
                    )
                    self.term_ids[outputs[0]] = sum_ids(term_id(outputs[0]), addend)


def addend_dims(bound: BoundOperator) -> tuple[int, ...]:
    """Return the dims of the result that an operator's addend has, counted from the last."""
    signature = bound.signature
    if signature is None or signature.addend is None:
        return ()
    result = [tuple(spell(pattern)) for pattern in signature.outputs[0]]
    dims = []
    for number, pattern in enumerate(signature.inputs[signature.addend]):
        labels = tuple(spell(pattern))
        back = number - len(signature.inputs[signature.addend])
        dims.append(result.index(labels) - len(result) if labels in result else back)
    return tuple(dims)


def aligned_term_id(term: int, dims: tuple[int, ...]) -> int:
    """Return the id of a term that is added along these dims, counted from the last."""
    if dims == tuple(range(-len(dims), 0)):
        return term
    return term_id(f"{term} along {dims}")


def _decompose_operators(
    graph: OperatorGraph, origins: set[str], extra: Mapping[str, Rule]
) -> OperatorGraph:
    """Return the graph with the parts of the operators that programs have decomposed."""
    wanted: dict[str, set[str]] = {}
    blocks = {call.name: call.block for call in graph.calls}
    known = {
        block.name: {operator.name for operator in block.operators}
        for block in graph.blocks.values()
    }
    for found in origins:
        prefix, slash, own = found.rpartition("/")
        block = blocks.get(prefix if slash else "")
        if block is not None and own not in known[block]:
            wanted.setdefault(block, set()).add(own)
    if not wanted:
        return graph
    changed = {
        block.name: _decompose_block(block, wanted.get(block.name, set()), extra)
        for block in graph.blocks.values()
    }
    return attrs.evolve(graph, blocks=changed)


def _decompose_block(block: Block, wanted: set[str], extra: Mapping[str, Rule]) -> Block:
    operators: list[Operator] = []
    tensors: dict[str, Tensor] = dict(block.tensors)
    for operator in block.operators:
        operators.append(operator)
        rule = rule_for(operator.target, extra)
        if rule is None or rule.decompose is None:
            continue
        if not any(own.startswith(f"{operator.name}.") for own in wanted):
            continue
        found = rule.decompose(operator_site(operator, block))
        if found is not None:
            operators.extend(found[0])
            tensors.update(found[1])
    return attrs.evolve(block, operators=tuple(operators), tensors=tensors)
