"""Placement of one block: from its operators and the cuts to the actions of devices.

For each operator the cuts are chosen that it works on. Its inputs are converted to these, and the
placements of its outputs follow.
"""

from __future__ import annotations

from collections.abc import Mapping

from parframe.dims import BoundOperator
from parframe.errors import ParframeError
from parframe.graph import Block, Operator
from parframe.partitioning.actions import WHOLE, Compute, Placement
from parframe.partitioning.block_values import Deferred, Free, Value, Values
from parframe.partitioning.cuts import Cut
from parframe.partitioning.nominal_sizes import nominal_bytes
from parframe.partitioning.split_options import Axes, Option, options
from parframe.rules import Signature
from parframe.rules.pointwise import is_addition
from parframe.rules.signature import Pattern
from parframe.sizes import format_size


class Placer:
    """Placer of the operators of one block."""

    def __init__(
        self,
        block: Block,
        axes: Axes,
        bound: Mapping[str, BoundOperator],
        cuts: tuple[Cut, ...],
        free: Free,
        replicate_missing: bool,
    ) -> None:
        self.block = block
        self.bound = bound
        self.values = Values(axes, cuts, free)
        self.replicate_missing = replicate_missing
        self.unruled: list[Operator] = []
        self.gathering: set[str] = set()

    def run(self, inputs: Mapping[str, Value], may: Mapping[str, frozenset[int]]) -> None:
        """Place every operator, and leave each output of the block in cuts that it ``may`` have."""
        for value, state in inputs.items():
            self.values[value] = state
        for index, operator in enumerate(self.block.operators):
            self.values.index = index
            bound = self.bound[operator.name]
            if bound.signature is None:
                self.replicate(operator, bound)
            elif not self.defer(operator, bound, bound.signature):
                self.place(operator, bound, bound.signature)
        for value in self.block.outputs:
            self.values.finish(value, may[value])

    def replicate(self, operator: Operator, bound: BoundOperator) -> None:
        """Replicate an operator without a rule, or refuse it.

        It is accepted if nothing is split, or if all its inputs are weights.
        """
        known = [self.values[value] for value in operator.inputs]
        touched = bool(self.values.cuts) and not all(state.free for state in known)
        if touched and not self.replicate_missing:
            raise ParframeError(
                "rule",
                operator.module or operator.name,
                f"{_uncovered(bound)}, so it is not known which dimensions pass through it "
                f"({operator.source})",
                "register a rule through the hook parframe_rules, or accept that every device "
                'computes all of it with on_missing_rule = "replicate"',
            )
        if touched:
            self.unruled.append(operator)
        names = tuple(self.values.need(value, frozenset()) for value in operator.inputs)
        befores, afters = (WHOLE,) * len(names), (WHOLE,) * len(operator.outputs)
        self.emit(bound, frozenset(), frozenset(), names, befores, afters)

    def place(self, operator: Operator, bound: BoundOperator, signature: Signature) -> None:
        """Choose the cuts that an operator works on, convert its inputs, and compute."""
        passing = self.passes(operator, signature)
        busy = {axis for axes, _ in (passing.partial if passing else ()) for axis in axes}
        chosen: list[Option] = []
        options = self.options(signature, bound)
        ranked = sorted(
            (option for option in options if self.source(option, operator, busy) is not None),
            key=lambda option: (
                option.form is None,
                option.cut.priority,
                self.source(option, operator, busy) != "active",
                option.cut.rank,
            ),
        )
        for option in ranked:
            if option.form is not None and any(one.form for one in chosen):
                continue
            together = _with_outer(option, chosen, options, ranked)
            axes = {axis for one in together for axis in one.cut.axes}
            if together and not busy & axes:
                chosen.extend(together)
                busy |= axes
        cuts = frozenset(rank for option in chosen for rank in option.ranks)
        labels = frozenset(label for option in chosen for label in option.labels)
        names: list[str] = []
        befores: list[Placement] = []
        partial = passing.partial if passing else frozenset()
        for position, value in enumerate(operator.inputs):
            wanted = frozenset(rank for option in chosen for rank in option.taken(position))
            state = self.values[value]
            if passing is not None and state.partial == passing:
                names.append(self.keep_partial(value, passing, wanted))
                befores.append(Placement(wanted, passing.partial))
            else:
                if bound.rule is not None and bound.rule.decompose and self.loses(value, wanted):
                    self.gathering.add(operator.name)
                names.append(self.values.need(value, wanted))
                befores.append(Placement(wanted))
        made = frozenset((o.cut.axes, signature.reduction) for o in chosen if o.contracted)
        afters = tuple(
            Placement(frozenset(o.cut.rank for o in chosen if o.outputs[position]), made | partial)
            for position in range(len(operator.outputs))
        )
        if made and signature.addend is not None and signature.addend < len(names):
            self.without_addend(operator, bound, cuts, labels, names, befores, afters[0])
            return
        form = next((option for option in chosen if option.form), None)
        self.emit(bound, cuts, labels, tuple(names), tuple(befores), afters, form)

    def source(self, option: Option, operator: Operator, busy: set[str]) -> str | None:
        """Return why an operator should work on a cut: an input is split by it, or may be."""
        if busy & set(option.cut.axes):
            return None
        result = None
        for has, value in zip(option.inputs, operator.inputs, strict=True):
            if not has:
                continue
            state = self.values[value]
            if state.free:
                result = result or "free"
                continue
            for layout in self.values.layouts(value):
                axes = [set(axes) for axes, _ in layout.partial]
                if option.cut.rank in layout.cuts or set(option.cut.axes) in axes:
                    return "active"
        return result

    def loses(self, value: str, wanted: frozenset[int]) -> bool:
        """Tell whether a split value would have to be gathered for some cuts."""
        state = self.values[value]
        return not state.free and all(layout.cuts - wanted for layout in self.values.layouts(value))

    def keep_partial(self, value: str, have: Placement, cuts: frozenset[int]) -> str:
        """Return a partial value with the wanted cuts, without reducing it."""
        state = self.values[value]
        if state.deferred is not None:
            raise ParframeError("internal", value, "is deferred and cannot pass", "report it")
        name = state.variants[have]
        if have.cuts == cuts:
            return name
        return self.values.convert_partial(value, name, have, cuts)

    def passes(self, operator: Operator, signature: Signature) -> Placement | None:
        """Return the partial placement that passes an operator, if that is legal and cheap."""
        partials = [self.values[value].partial for value in operator.inputs]
        at = frozenset(i for i, layout in enumerate(partials) if layout is not None)
        if not at or signature.addend is not None:
            return None
        layouts = {partials[i] for i in at}
        if len(layouts) != 1 or any(self.values[operator.inputs[i]].deferred for i in at):
            return None
        layout = layouts.pop()
        if layout is None:
            return None
        sums = all(reduction == "sum" for _, reduction in layout.partial)
        if not (signature.moves or (sums and at in signature.linear)):
            return None
        if signature.moves and len(at) != len(operator.inputs):
            return None
        if len(operator.inputs) > 1 and signature.contracted():
            return None
        tensors = self.block.tensors
        before = sum(nominal_bytes(tensors[operator.inputs[i]]) for i in at)
        after = sum(nominal_bytes(tensors[value]) for value in operator.outputs)
        return layout if after <= before else None

    def without_addend(
        self,
        operator: Operator,
        bound: BoundOperator,
        cuts: frozenset[int],
        labels: frozenset[str],
        names: list[str],
        befores: list[Placement],
        after: Placement,
    ) -> None:
        """Compute without the bias, which is added after the sum is reduced."""
        signature = bound.signature
        if signature is None or signature.addend is None:
            raise ParframeError("internal", operator.name, "has no addend", "report it")
        at = signature.addend
        output = f"{operator.outputs[0]}~bare"
        self.values.actions.append(
            Compute(
                self.values.index, bound, cuts, labels,
                tuple(n for i, n in enumerate(names) if i != at),
                tuple(b for i, b in enumerate(befores) if i != at),
                (output,), (after,), bare=True,
            )
        )  # fmt: skip
        aligned = _aligned(signature.inputs[at], signature.outputs[0])
        rest = ((operator.inputs[at], aligned, operator),)
        self.values[operator.outputs[0]] = Value(deferred=Deferred(output, after, rest))

    def defer(self, operator: Operator, bound: BoundOperator, signature: Signature) -> bool:
        """Defer the sum of a partial and a complete term; return whether that is done."""
        if not is_addition(operator):
            return False
        if len(operator.inputs) != 2 or operator.inputs[0] == operator.inputs[1]:
            return False
        states = [self.values[value] for value in operator.inputs]
        partials = [state.partial for state in states]
        if partials == [None, None]:
            return False
        output = operator.outputs[0]
        shape = self.block.tensors[output].shape
        same_shape = [self.block.tensors[value].shape == shape for value in operator.inputs]
        dtypes = {self.block.tensors[v].dtype for v in (*operator.inputs, output)}
        if len(dtypes) > 1:
            return False
        if None not in partials:
            if partials[0] != partials[1] or not all(same_shape):
                return False
            if all(state.deferred is None for state in states):
                return False
            return self.merge(operator, bound, signature)
        at = 0 if partials[0] is not None else 1
        if not same_shape[at]:
            return False
        layout = partials[at]
        if layout is None or any(reduction != "sum" for _, reduction in layout.partial):
            return False
        other = operator.inputs[1 - at]
        rank, width = len(shape), len(self.block.tensors[other].shape)
        aligned = tuple(range(rank - width, rank))
        inner = states[at].deferred
        name = inner.partial if inner else states[at].variants[layout]
        rest = (*(inner.rest if inner else ()), (other, aligned, operator))
        self.values[output] = Value(deferred=Deferred(name, layout, rest))
        return True

    def merge(self, operator: Operator, bound: BoundOperator, signature: Signature) -> bool:
        """Add the partial terms of two deferred sums; their other terms stay deferred."""
        parts: list[str] = []
        rest: list[tuple[str, tuple[int, ...], Operator]] = []
        layout = WHOLE
        for value in operator.inputs:
            state = self.values[value]
            layout = state.partial or WHOLE
            if state.deferred is not None:
                parts.append(state.deferred.partial)
                rest.extend(state.deferred.rest)
            else:
                parts.append(state.variants[layout])
        if any(reduction != "sum" for _, reduction in layout.partial):
            return False
        output = f"{operator.outputs[0]}~partial"
        options = (o for o in self.options(signature, bound) if o.cut.rank in layout.cuts)
        labels = frozenset(label for option in options for label in option.labels)
        self.values.actions.append(
            Compute(
                self.values.index, bound, layout.cuts, labels, tuple(parts), (layout, layout),
                (output,), (layout,),
            )
        )  # fmt: skip
        self.values[operator.outputs[0]] = Value(deferred=Deferred(output, layout, tuple(rest)))
        return True

    def options(self, signature: Signature, bound: BoundOperator) -> list[Option]:
        """List every cut that an operator can work on."""
        return options(signature, bound, self.values.axes, self.values.cuts)

    def emit(
        self,
        bound: BoundOperator,
        cuts: frozenset[int],
        labels: frozenset[str],
        names: tuple[str, ...],
        befores: tuple[Placement, ...],
        afters: tuple[Placement, ...],
        distributed: Option | None = None,
    ) -> None:
        """Append the computation and record its outputs."""
        operator = bound.site.operator
        self.values.actions.append(
            Compute(
                self.values.index, bound, cuts, labels, names, befores, operator.outputs, afters,
                form=distributed.form if distributed else None,
                axes=distributed.cut.axes if distributed else (),
            )
        )  # fmt: skip
        for value, layout in zip(operator.outputs, afters, strict=True):
            self.values[value] = Value(variants={layout: value})


def _with_outer(
    option: Option, chosen: list[Option], among: list[Option], ranked: list[Option]
) -> list[Option]:
    """Return an option with those of its outer cuts that are not chosen yet.

    Outer cuts that cannot split the operator are skipped. The list is empty if an outer cut could
    split it but no input has that cut.
    """
    together = [option]
    outer = option.cut.outer
    while outer is not None:
        missed = any(one.cut.rank == outer.rank for one in among)
        if missed and all(outer.rank not in one.ranks for one in chosen):
            same = (one for one in ranked if one.cut.rank == outer.rank and one.form is None)
            found = next(same, None)
            if found is None:
                return []
            together.insert(0, found)
        outer = outer.outer
    return together


def _uncovered(bound: BoundOperator) -> str:
    """Return why it is not known how dimensions pass through an operator."""
    target = bound.site.operator.target
    if bound.rule is None:
        return f"operator {target} has no rule"
    shapes = ", ".join(
        f"[{', '.join(format_size(size) for size in tensor.shape)}]" for tensor in bound.site.inputs
    )
    return f"the rule of operator {target} does not cover inputs of shape {shapes}"


def _aligned(addend: tuple[Pattern, ...], result: tuple[Pattern, ...]) -> tuple[int, ...]:
    """Return the dims of a result that an addend's dims are; those of size one from the right."""
    behind = len(result) - len(addend)
    return tuple(
        result.index(pattern) if pattern else behind + position
        for position, pattern in enumerate(addend)
    )
