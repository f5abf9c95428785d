"""Placing one block: names and cuts in, the devices' actions out.

For each operator it is decided which cuts it works on; its inputs are converted to that, and its
outputs follow. A partial sum is reduced as late as linearity allows and once: a sum with terms
that are not partial waits, as a *deferred* value, until it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from parframe.dims import Bound, dims_of
from parframe.errors import ParframeError
from parframe.graph import BYTES, Block, Operator, Tensor
from parframe.layout import Axis, Leaf
from parframe.partitioning.actions import (
    WHOLE,
    Action,
    Add,
    Compute,
    Convert,
    Layout,
    Partial,
)
from parframe.partitioning.cuts import Cut
from parframe.rules import Signature
from parframe.rules.signature import Pattern, spell
from parframe.sizes import evaluate, symbols_of

NOMINAL = 64
"""What a symbolic size counts for when two ways are compared."""


def nominal_bytes(tensor: Tensor) -> float:
    """The bytes of a tensor with every symbol at its nominal size."""
    count = 1
    for size in tensor.shape:
        count *= evaluate(size, dict.fromkeys(symbols_of(size), NOMINAL))
    return count * BYTES[tensor.dtype]


def occurrences(axis: Axis, dim: str) -> int:
    """How often a dimension is a factor of an axis (at most once in each segment)."""
    return sum(
        (factor.dim == dim)
        if isinstance(factor, Leaf)
        else max((occurrences(part, dim) for part in factor.parts), default=0)
        for factor in axis
    )


def tiles(axis: Axis, dim: str) -> bool:
    """Whether pieces that tile a dimension tile the axis, too: every segment has it."""
    return any(
        factor.dim == dim
        if isinstance(factor, Leaf)
        else all(tiles(part, dim) for part in factor.parts)
        for factor in axis
    )


@attrs.frozen
class Deferred:
    """A sum whose partial terms are added up, and whose other terms wait for the reduction."""

    partial: str
    layout: Layout
    rest: tuple[tuple[str, tuple[int, ...], Operator], ...]


@attrs.define
class Value:
    """What is known of a value: its local names by layout, or that it is deferred."""

    free: bool = False
    variants: dict[Layout, str] = attrs.field(factory=dict)
    deferred: Deferred | None = None

    @property
    def partial(self) -> Layout | None:
        """The partial layout it has, if it has no other."""
        if self.deferred is not None:
            return self.deferred.layout
        if self.variants and all(layout.partial for layout in self.variants):
            return next(iter(self.variants))
        return None


@attrs.frozen
class Option:
    """One cut that an operator could work on: the letters it splits, the tensors that have it."""

    cut: Cut
    letters: frozenset[str]
    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    contracted: bool


class Placer:
    """Places the operators of one block."""

    def __init__(
        self,
        block: Block,
        axes: Mapping[str, tuple[Axis, ...]],
        bound: Mapping[str, Bound],
        cuts: tuple[Cut, ...],
        free: Callable[[str, frozenset[int]], frozenset[int]],
        replicate_missing: bool,
    ) -> None:
        self.block = block
        self.axes = axes
        self.bound = bound
        self.cuts = cuts
        self.free = free
        self.replicate_missing = replicate_missing
        self.actions: list[Action] = []
        self.values: dict[str, Value] = {}
        self.index = 0
        self.count = 0
        self.unruled: list[Operator] = []
        self.gathering: set[str] = set()

    # values and layouts

    def carries(self, value: str, cut: Cut) -> bool:
        """Whether a cut can split a value: exactly one axis has each of its dimensions."""
        chain = cut.uneven
        count = [sum(occurrences(axis, dim) for axis in self.axes[value]) for dim in sorted(chain)]
        return any(count) and max(count) <= 1

    def restrict(self, value: str, cuts: Iterable[int]) -> frozenset[int]:
        """Those of some cuts that split a value."""
        return frozenset(c for c in cuts if self.carries(value, self.cuts[c]))

    def fresh(self, value: str) -> str:
        """A new local name for a value."""
        self.count += 1
        return f"{value}@{self.count}"

    def need(self, value: str, cuts: frozenset[int]) -> str:
        """The local name of a value split by just these cuts and not partial, converting it."""
        state = self.values[value]
        layout = Layout(self.restrict(value, cuts))
        if layout in state.variants:
            return state.variants[layout]
        if state.deferred is not None:
            return self.settle(value, layout)
        if state.free:
            held = Layout(self.restrict(value, self.free(value, layout.cuts)))
            state.variants.setdefault(held, value if not state.variants else self.fresh(value))
            if layout in state.variants:
                return state.variants[layout]
        source = min(state.variants, key=lambda have: (_distance(have, layout), sorted(have.cuts)))
        name = self.convert(value, state.variants[source], source, layout)
        state.variants[layout] = name
        return name

    def settle(self, value: str, layout: Layout) -> str:
        """Reduce a deferred value's partial part to a layout and add what waits."""
        state = self.values[value]
        deferred = state.deferred
        if deferred is None:
            raise ParframeError("internal", value, "is not deferred", "report it")
        name = self.convert(value, deferred.partial, deferred.layout, layout)
        for position, (addend, aligned, operator) in enumerate(deferred.rest):
            right = self.need(addend, layout.cuts)
            last = position == len(deferred.rest) - 1
            output = value if last else self.fresh(value)
            self.actions.append(
                Add(
                    self.index, value, name, right, addend, output, layout,
                    Layout(self.restrict(addend, layout.cuts)), aligned, operator,
                )
            )  # fmt: skip
            name = output
        state.deferred = None
        state.variants = {layout: name}
        return name

    def convert(self, value: str, source: str, before: Layout, after: Layout) -> str:
        """Steps from one layout to another; returns the last local name."""
        have = before
        name = source

        def step(
            kind: str,
            then: Layout,
            gone: int | None = None,
            come: int | None = None,
            partial: Partial | None = None,
        ) -> None:
            nonlocal have, name
            output = self.fresh(value)
            self.actions.append(
                Convert(self.index, kind, value, name, output, have, then, gone, come, partial)
            )
            have, name = then, output

        busy = {axis for axes, _ in have.partial for axis in axes}
        busy |= {axis for c in have.cuts - after.cuts for axis in self.cuts[c].axes}
        for c in sorted(after.cuts - have.cuts):
            if not busy & set(self.cuts[c].axes):
                step("shard", Layout(have.cuts | {c}, have.partial), come=c)
        for partial in sorted(have.partial):
            scatter = self.same_axes(partial[0], after.cuts - have.cuts)
            rest = have.partial - {partial}
            if scatter is not None:
                step(
                    "reduce_scatter", Layout(have.cuts | {scatter}, rest),
                    come=scatter, partial=partial,
                )  # fmt: skip
            else:
                step("all_reduce", Layout(have.cuts, rest), partial=partial)
        for c in sorted(have.cuts - after.cuts, reverse=True):
            other = self.same_axes(self.cuts[c].axes, after.cuts - have.cuts)
            if other is not None:
                step("all_to_all", Layout(have.cuts - {c} | {other}), gone=c, come=other)
            else:
                step("all_gather", Layout(have.cuts - {c}), gone=c)
        for c in sorted(after.cuts - have.cuts):
            step("shard", Layout(have.cuts | {c}), come=c)
        return name

    def same_axes(self, axes: tuple[str, ...], among: Iterable[int]) -> int | None:
        """The first of some cuts that lies on just these axes."""
        return next((c for c in sorted(among) if set(self.cuts[c].axes) == set(axes)), None)

    # operators

    def run(self, inputs: Mapping[str, Value]) -> None:
        """Place every operator, then settle the block's outputs."""
        self.values.update(inputs)
        for self.index, operator in enumerate(self.block.operators):
            bound = self.bound[operator.name]
            if bound.signature is None:
                self.replicate(operator, bound)
            elif not self.defer(operator, bound, bound.signature):
                self.place(operator, bound, bound.signature)
        for value in self.block.outputs:
            self.finish(value)

    def finish(self, value: str) -> None:
        """Make an output of the block whole or split, never partial."""
        state = self.values[value]
        partial = state.partial
        if partial is None:
            if state.free:
                self.need(value, frozenset())
            return
        busy = {axis for c in partial.cuts for axis in self.cuts[c].axes}
        cuts = set(partial.cuts)
        for axes, _ in sorted(partial.partial):
            fit = self.same_axes(axes, [c.rank for c in self.cuts if self.carries(value, c)])
            if fit is not None and not busy & set(axes):
                cuts.add(fit)
        self.need(value, frozenset(cuts))

    def layout_of(self, value: str) -> Layout:
        """The layout in which an output of the block is left."""
        variants = self.values[value].variants
        return next(layout for layout in variants if not layout.partial)

    def replicate(self, operator: Operator, bound: Bound) -> None:
        """An operator without a rule: refused where something split passes through it."""
        touched = [
            value
            for value in operator.inputs
            if any(layout.cuts or layout.partial for layout in self.layouts(value))
            or (self.values[value].free and self.restrict(value, range(len(self.cuts))))
        ]
        if touched and not self.replicate_missing:
            raise ParframeError(
                "rule",
                operator.module or operator.name,
                f"operator {operator.target} has no rule, and {touched[0]!r}, which is split, "
                f"passes through it ({operator.source})",
                "register a rule through the hook parframe_rules, or accept that every device "
                'computes all of it with on_missing_rule = "replicate"',
            )
        if touched:
            self.unruled.append(operator)
        names = tuple(self.need(value, frozenset()) for value in operator.inputs)
        self.emit(bound, frozenset(), frozenset(), names, (WHOLE,) * len(names), WHOLE, ())

    def layouts(self, value: str) -> list[Layout]:
        """The layouts that a value has now."""
        state = self.values[value]
        return [state.deferred.layout] if state.deferred is not None else list(state.variants)

    def defer(self, operator: Operator, bound: Bound, signature: Signature) -> bool:
        """A sum of a partial term and one that is not waits until it is needed."""
        if operator.target != "aten.add.Tensor" or operator.args.get("alpha", 1) != 1:
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

    def merge(self, operator: Operator, bound: Bound, signature: Signature) -> bool:
        """Add the partial terms of two sums; what waits in either waits on."""
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
        letters = self.split_letters(signature, bound, layout.cuts)
        self.actions.append(
            Compute(
                self.index, bound, layout.cuts, letters, tuple(parts), (layout, layout),
                (output,), (layout,),
            )
        )  # fmt: skip
        self.values[operator.outputs[0]] = Value(deferred=Deferred(output, layout, tuple(rest)))
        return True

    def split_letters(
        self, signature: Signature, bound: Bound, cuts: frozenset[int]
    ) -> frozenset[str]:
        """The letters that some cuts split in an operator."""
        found: set[str] = set()
        for option in self.options(signature, bound):
            if option.cut.rank in cuts:
                found |= option.letters
        return frozenset(found)

    def options(self, signature: Signature, bound: Bound) -> list[Option]:
        """Every cut that an operator could work on."""
        operator = bound.site.operator
        blocked = {letter for letter, axis in bound.letters.items() if axis is None}
        frozen = signature.unsplittable() | blocked
        found = []
        for cut in self.cuts:
            chain = cut.uneven
            carry = {
                letter
                for letter, axis in bound.letters.items()
                if axis is not None and dims_of(axis) & chain
            }
            good = carry - frozen
            contracted = good & signature.contracted()
            if contracted and not self.tiled(cut, bound, contracted, good):
                good -= contracted
                contracted = frozenset()
            if not good:
                continue
            tensors = [
                self.having(cut, value, patterns, carry, good)
                for value, patterns in zip(
                    (*operator.inputs, *operator.outputs),
                    (*signature.inputs, *signature.outputs),
                    strict=True,
                )
            ]
            if None in tensors:
                continue
            has = [bool(tensor) for tensor in tensors]
            width = len(operator.inputs)
            found.append(
                Option(
                    cut, frozenset(good), tuple(has[:width]), tuple(has[width:]), bool(contracted)
                )
            )
        return found

    def tiled(
        self, cut: Cut, bound: Bound, contracted: frozenset[str] | set[str], good: set[str]
    ) -> bool:
        """Whether the devices' parts of the contracted letters are the whole, each once."""
        for dim in cut.uneven:
            axes = [bound.letters[letter] for letter in contracted]
            if not any(axis is not None and tiles(axis, dim) for axis in axes):
                return False
            kept = [bound.letters[letter] for letter in good - set(contracted)]
            if any(axis is not None and dim in dims_of(axis) for axis in kept):
                return False
        return True

    def having(
        self,
        cut: Cut,
        value: str,
        patterns: tuple[Pattern, ...],
        carry: set[str],
        good: set[str],
    ) -> bool | None:
        """Whether a tensor is split by a cut in this operator; None if only a part of it is."""
        chain = cut.uneven
        verdicts: set[bool] = set()
        for axis, pattern in zip(self.axes[value], patterns, strict=True):
            if dims_of(axis) & chain:
                bearing = set(spell(pattern)) & carry
                if bearing & good and not bearing <= good:
                    return None
                verdicts.add(bool(bearing & good))
        if not verdicts:
            return False
        if len(verdicts) == 2:
            return None
        if verdicts == {True} and not self.carries(value, cut):
            return None
        return verdicts.pop()

    def place(self, operator: Operator, bound: Bound, signature: Signature) -> None:
        """Decide the cuts that an operator works on, convert its inputs, and compute."""
        passing = self.passes(operator, signature)
        busy = {axis for axes, _ in (passing.partial if passing else ()) for axis in axes}
        chosen: list[Option] = []
        options = self.options(signature, bound)
        ranked = sorted(
            (option for option in options if self.source(option, operator, busy) is not None),
            key=lambda option: (
                option.cut.priority,
                self.source(option, operator, busy) != "active",
                option.cut.rank,
            ),
        )
        for option in ranked:
            if not busy & set(option.cut.axes):
                chosen.append(option)
                busy |= set(option.cut.axes)
        cuts = frozenset(option.cut.rank for option in chosen)
        letters = frozenset(letter for option in chosen for letter in option.letters)
        names: list[str] = []
        befores: list[Layout] = []
        partial = passing.partial if passing else frozenset()
        for position, value in enumerate(operator.inputs):
            wanted = frozenset(o.cut.rank for o in chosen if o.inputs[position])
            state = self.values[value]
            if passing is not None and state.partial == passing:
                names.append(self.keep_partial(value, passing, wanted))
                befores.append(Layout(wanted, passing.partial))
            else:
                if bound.rule is not None and bound.rule.decompose and self.loses(value, wanted):
                    self.gathering.add(operator.name)
                names.append(self.need(value, wanted))
                befores.append(Layout(wanted))
        made = frozenset((o.cut.axes, signature.reduction) for o in chosen if o.contracted)
        afters = tuple(
            Layout(frozenset(o.cut.rank for o in chosen if o.outputs[position]), made | partial)
            for position in range(len(operator.outputs))
        )
        if made and signature.addend is not None and signature.addend < len(names):
            self.without_addend(operator, bound, cuts, letters, names, befores, afters[0])
            return
        self.emit(bound, cuts, letters, tuple(names), tuple(befores), None, afters)

    def loses(self, value: str, wanted: frozenset[int]) -> bool:
        """Whether a value that is split would have to be gathered for some cuts."""
        state = self.values[value]
        return not state.free and all(layout.cuts - wanted for layout in self.layouts(value))

    def keep_partial(self, value: str, have: Layout, cuts: frozenset[int]) -> str:
        """A partial value in the cuts wanted, without reducing it."""
        state = self.values[value]
        if state.deferred is not None:
            raise ParframeError("internal", value, "is deferred and cannot pass", "report it")
        name = state.variants[have]
        if have.cuts == cuts:
            return name
        return self.convert_partial(value, name, have, cuts)

    def convert_partial(self, value: str, name: str, have: Layout, cuts: frozenset[int]) -> str:
        """Change the cuts of a partial value."""
        now = have
        for c in sorted(have.cuts - cuts):
            output, then = self.fresh(value), Layout(now.cuts - {c}, now.partial)
            self.actions.append(
                Convert(self.index, "all_gather", value, name, output, now, then, gone=c)
            )
            name, now = output, then
        for c in sorted(cuts - now.cuts):
            output, then = self.fresh(value), Layout(now.cuts | {c}, now.partial)
            self.actions.append(
                Convert(self.index, "shard", value, name, output, now, then, come=c)
            )
            name, now = output, then
        self.values[value].variants[now] = name
        return name

    def passes(self, operator: Operator, signature: Signature) -> Layout | None:
        """The partial layout that may pass through an operator, if it does and it is wise."""
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

    def source(self, option: Option, operator: Operator, busy: set[str]) -> str | None:
        """Why an operator should work on a cut: an input is split so, or may come so."""
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
            for layout in self.layouts(value):
                axes = [set(axes) for axes, _ in layout.partial]
                if option.cut.rank in layout.cuts or set(option.cut.axes) in axes:
                    return "active"
        return result

    def without_addend(
        self,
        operator: Operator,
        bound: Bound,
        cuts: frozenset[int],
        letters: frozenset[str],
        names: list[str],
        befores: list[Layout],
        after: Layout,
    ) -> None:
        """Compute without the bias, which waits until the sum is reduced."""
        signature = bound.signature
        if signature is None or signature.addend is None:
            raise ParframeError("internal", operator.name, "has no addend", "report it")
        at = signature.addend
        output = f"{operator.outputs[0]}~bare"
        self.actions.append(
            Compute(
                self.index, bound, cuts, letters,
                tuple(n for i, n in enumerate(names) if i != at),
                tuple(b for i, b in enumerate(befores) if i != at),
                (output,), (after,), bare=True,
            )
        )  # fmt: skip
        order = [tuple(spell(pattern)) for pattern in signature.outputs[0]]
        aligned = tuple(order.index(tuple(spell(pattern))) for pattern in signature.inputs[at])
        rest = ((operator.inputs[at], aligned, operator),)
        self.values[operator.outputs[0]] = Value(deferred=Deferred(output, after, rest))

    def emit(
        self,
        bound: Bound,
        cuts: frozenset[int],
        letters: frozenset[str],
        names: tuple[str, ...],
        befores: tuple[Layout, ...],
        after: Layout | None,
        afters: tuple[Layout, ...],
    ) -> None:
        """Write the computation and note its outputs."""
        operator = bound.site.operator
        if after is not None:
            afters = (after,) * len(operator.outputs)
        self.actions.append(
            Compute(self.index, bound, cuts, letters, names, befores, operator.outputs, afters)
        )
        for value, layout in zip(operator.outputs, afters, strict=True):
            self.values[value] = Value(variants={layout: value})


def _distance(have: Layout, want: Layout) -> tuple[int, int]:
    """How much has to be said between devices, then how much has to be done."""
    talk = len(have.partial) + len(have.cuts - want.cuts)
    return talk, len(want.cuts - have.cuts)
