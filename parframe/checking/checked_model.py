"""The model as the checker sees it: every value's terms, and the rule of every operator.

Where a program refers to the parts of an operator that was written as simpler ones
(``call/op.part``), these are added to the operator's block by the table of rules, and everything
is named anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import attrs

from parframe.checking.tensor_types import add_marks, mark
from parframe.dims import BoundOperator, Dimensions, name_dimensions
from parframe.dims.halves import halve_dimensions
from parframe.graph import Block, Call, Operator, OperatorGraph, Tensor
from parframe.layout import Axis
from parframe.plan import Program
from parframe.rules import Rule, Site
from parframe.rules.signature import spell
from parframe.rules.table import rule_for


@attrs.frozen
class Origin:
    """An operator of the model: its call, its block's own operator, and its rule."""

    call: Call
    block: Block
    operator: Operator
    bound: BoundOperator
    names: Mapping[str, str] = attrs.field(repr=False)

    @property
    def module(self) -> str:
        """The path of the module it came from."""
        last = self.call.name.rsplit(".", 1)[-1]
        return self.operator.module.replace("*", last) if self.call.name else self.operator.module


class Whole:
    """The model that a plan is checked against."""

    def __init__(
        self,
        graph: OperatorGraph,
        programs: Iterable[Program],
        rules: Iterable[Rule] = (),
        mirrored: Iterable[str] = (),
    ) -> None:
        extra = {rule.target: rule for rule in rules}
        origins = {op.origin or op.name for program in programs for op in program.operators}
        self.graph = _with_parts(graph, origins, extra)
        self.dimensions: Dimensions = halve_dimensions(
            name_dimensions(self.graph, extra.values()), mirrored
        )
        self.names = {
            call.name: call.names(self.graph.blocks[call.block]) for call in self.graph.calls
        }
        self.operators = {
            block.name: {operator.name: operator for operator in block.operators}
            for block in self.graph.blocks.values()
        }
        self.calls = {call.name: call for call in self.graph.calls}
        self.terms: dict[str, int] = {}
        self._count_terms()

    def origin(self, operator: Operator) -> Origin | None:
        """The model's operator that a device's operator serves."""
        found = operator.origin or operator.name
        prefix, slash, own = found.rpartition("/")
        call = self.calls.get(prefix if slash else "")
        if call is None or own not in self.operators[call.block]:
            return None
        block = self.graph.blocks[call.block]
        return Origin(
            call,
            block,
            self.operators[block.name][own],
            self.dimensions.bound[block.name][own],
            self.names[call.name],
        )

    @cached_property
    def outer(self) -> Mapping[str, tuple[Axis, ...]]:
        """The axes of inputs, parameters and the values between calls."""
        return self.dimensions.outer

    def axes(self, origin: Origin, own: str) -> tuple[Axis, ...]:
        """The axes of a block's value."""
        return self.dimensions.axes[origin.block.name][own]

    def _count_terms(self) -> None:
        """Write every value as a sum: sums and addends are taken apart, all else is a term."""
        for outer in (*self.graph.inputs, *self.graph.parameters):
            self.terms[outer] = mark(outer)
        for call in self.graph.calls:
            block = self.graph.blocks[call.block]
            names = self.names[call.name]
            bound = self.dimensions.bound[block.name]
            for operator in block.operators:
                inputs = [self.terms[names[value]] for value in operator.inputs]
                outputs = [names[value] for value in operator.outputs]
                if outputs[0] in self.terms:
                    continue
                if is_sum(operator):
                    self.terms[outputs[0]] = add_marks(*inputs)
                    continue
                for output in outputs:
                    self.terms[output] = mark(output)
                signature = bound[operator.name].signature
                if signature is not None and signature.addend is not None:
                    addend = aligned_mark(inputs[signature.addend], alignment(bound[operator.name]))
                    self.terms[outputs[0]] = add_marks(mark(outputs[0]), addend)


def is_sum(operator: Operator) -> bool:
    """Whether an operator is the sum of two tensors and nothing else."""
    return (
        operator.target == "aten.add.Tensor"
        and operator.args.get("alpha", 1) == 1
        and operator.slots == ("self", "other")
    )


def alignment(bound: BoundOperator) -> tuple[int, ...]:
    """The axes of the result that an operator's addend has, counted from the back."""
    signature = bound.signature
    if signature is None or signature.addend is None:
        return ()
    result = [tuple(spell(pattern)) for pattern in signature.outputs[0]]
    places = []
    for number, pattern in enumerate(signature.inputs[signature.addend]):
        letters = tuple(spell(pattern))
        back = number - len(signature.inputs[signature.addend])
        places.append(result.index(letters) - len(result) if letters in result else back)
    return tuple(places)


def aligned_mark(term: int, places: tuple[int, ...]) -> int:
    """The mark of a term that is added along these axes, counted from the back."""
    if places == tuple(range(-len(places), 0)):
        return term
    return mark(f"{term} along {places}")


def _with_parts(
    graph: OperatorGraph, origins: set[str], extra: Mapping[str, Rule]
) -> OperatorGraph:
    """The graph with the parts of the operators that programs take apart."""
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
        block.name: _block_with_parts(block, wanted.get(block.name, set()), extra)
        for block in graph.blocks.values()
    }
    return attrs.evolve(graph, blocks=changed)


def _block_with_parts(block: Block, wanted: set[str], extra: Mapping[str, Rule]) -> Block:
    operators: list[Operator] = []
    tensors: dict[str, Tensor] = dict(block.tensors)
    for operator in block.operators:
        operators.append(operator)
        rule = rule_for(operator.target, extra)
        if rule is None or rule.decompose is None:
            continue
        if not any(own.startswith(f"{operator.name}.") for own in wanted):
            continue
        site = Site(
            operator,
            tuple(block.tensors[value] for value in operator.inputs),
            tuple(block.tensors[value] for value in operator.outputs),
        )
        found = rule.decompose(site)
        if found is not None:
            operators.extend(found[0])
            tensors.update(found[1])
    return attrs.evolve(block, operators=tuple(operators), tensors=tensors)
