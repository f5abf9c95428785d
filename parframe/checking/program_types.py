"""One program retyped: what every local value is, derived operator by operator.

A walk stops at each communication operator and yields it with what the device puts in; whoever
follows all programs answers with what comes out.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import attrs

from parframe.checking.additions import Sums
from parframe.checking.checked_model import Origin, Whole, is_sum
from parframe.checking.distributed_forms import apart, as_exchange, exchanged
from parframe.checking.form_comparison import Forms
from parframe.checking.operator_types import Step, type_operator
from parframe.checking.samples import Bindings
from parframe.checking.shard_regions import fit
from parframe.checking.tensor_types import Held, Pending, Place, mark, place
from parframe.graph import Operator, Ref
from parframe.plan import COMMUNICATION, Program
from parframe.rules.table import EXCHANGES
from parframe.sizes import Size

_VIEWS = frozenset({"aten.view.default", "aten.reshape.default"})


@attrs.frozen
class Request:
    """A communication operator, and what the device puts into it (None: nothing, or unknown).

    Of an exchange each input that travels is asked for by its number: it is united along ``dims``.
    """

    operator: Operator
    given: Held | None
    number: int | None = None
    dims: frozenset[str] = frozenset()


Walk = Generator[Request, Held | None, None]


class Walker(Sums):
    """One program, operator by operator.

    Parameters
    ----------
    whole, program, ranks, bindings
        As in ``Values``.
    steps
        Operators typed before, by all that their types depend on.
    """

    def __init__(
        self,
        whole: Whole,
        program: Program,
        ranks: tuple[int, ...],
        steps: dict[object, Step],
        bindings: Sequence[Bindings],
    ) -> None:
        super().__init__(whole, program, ranks, bindings)
        self.steps = steps
        self.position = 0
        self.origins = [
            whole.origin(operator)
            if operator.target not in COMMUNICATION - EXCHANGES.keys()
            else None
            for operator in program.operators
        ]

    def walk(self) -> Walk:
        """Type the program; communications are asked for."""
        for part in (*self.program.inputs, *self.program.parameters):
            self.enter(part)
        operators = self.program.operators
        while self.position < len(operators):
            operator = operators[self.position]
            if operator.target in EXCHANGES:
                yield from self._exchange(operator, self.origins[self.position])
                self.position += 1
            elif operator.target in COMMUNICATION:
                source = operator.args.get("input")
                given = self.values.get(source.name) if isinstance(source, Ref) else None
                result = yield Request(operator, given)
                for name in operator.outputs:
                    self.define(operator, name, result)
                self.position += 1
            elif operator.target == "parframe.shard":
                self.shard(operator)
                self.position += 1
            else:
                self.position += self._compute(self.position)

    def _compute(self, at: int) -> int:
        """Type the operator at a place, and those that belong to it; how many they are."""
        operator = self.program.operators[at]
        origin = self.origins[at]
        if origin is None:
            self.blame("structure", operator, "serves no operator of the model")
            self.values.update(dict.fromkeys(operator.outputs))
            return 1
        signature = origin.bound.signature
        addend = signature is not None and signature.addend is not None
        covered = signature is not None
        if covered and is_sum(operator) and (addend or is_sum(origin.operator)):
            self.add(operator, origin)
            return 1
        if addend and operator.target in _VIEWS and origin.operator.target not in _VIEWS:
            self.align(operator, origin)
            return 1
        return self._served(at, operator, origin)

    def _served(self, at: int, operator: Operator, origin: Origin) -> int:
        """Type an operator that is (part of) the local form of one of the model's."""
        run = self._run(at, origin)
        made = {name for member in run for name in member.outputs}
        outside = [name for member in run for name in member.inputs if name not in made]
        if any(self.values.get(name) is None for name in outside):
            count = self._give_up(run, origin)
            return count
        signature = origin.bound.signature
        chosen, missing = self._inputs(origin, outside)
        bare = (
            signature is not None and signature.addend is not None and missing == [signature.addend]
        )
        if missing and not bare:
            self._misses(operator, origin, outside, missing[0])
            return self._give_up(run, origin)
        step = self._step(operator, origin, self._held(chosen), bare, run)
        if step is None:
            return self._give_up(run, origin)
        for kind, message in step.faults:
            self.blame(kind, operator, message, origin.module)
        return self._accept(run, origin, step, chosen, bare)

    def _exchange(self, operator: Operator, origin: Origin | None) -> Walk:
        """Type an operator whose devices exchange a letter, as if it were gathered."""
        found = exchanged(operator, origin)
        if origin is None or found is None:
            self.blame("structure", operator, "serves no operator of the model with such a form")
            self.values.update(dict.fromkeys(operator.outputs))
            return
        chosen, missing = self._inputs(origin, operator.inputs)
        held = self._held(chosen)
        own = {number: held[number] for number in found.moved}
        for number, given in own.items():
            held[number] = yield Request(operator, given, number, found.dims)
        if missing and all(self.values.get(name) is not None for name in operator.inputs):
            self._misses(operator, origin, operator.inputs, missing[0])
        step = None if None in held else self._step(operator, origin, held, False, (operator,))
        if step is None:
            self._give_up((operator,), origin)
            return
        places = {
            number: fit(given.place, self.whole.axes(origin, name)) or given.place
            for number, name in enumerate(origin.operator.inputs)
            if (given := own.get(number, held[number])) is not None
        }
        moved = {number: places[number] for number in found.moved}
        for kind, message in (*step.faults, *apart(origin, found, moved)):
            self.blame(kind, operator, message, origin.module)
        step = as_exchange(step, operator, origin, found, places)
        self._accept((operator,), origin, step, chosen, False)

    def _misses(
        self, operator: Operator, origin: Origin, outside: Sequence[str], missing: int
    ) -> None:
        """Blame an operator that takes another value than the model's."""
        own = origin.operator.inputs[missing]
        self.blame(
            "type", operator,
            f"takes {', '.join(self.label(name) for name in outside) or 'nothing'} "
            f"where {origin.names[own]!r} belongs",
        )  # fmt: skip

    def _held(self, names: Sequence[str | None]) -> list[Held | None]:
        """What the device holds under some names."""
        return [self.values.get(name) if name is not None else None for name in names]

    def _run(self, at: int, origin: Origin) -> tuple[Operator, ...]:
        """The operators that follow and serve the same one."""
        operators = self.program.operators
        stop = at
        while (
            stop < len(operators)
            and operators[stop].target not in COMMUNICATION
            and operators[stop].target != "parframe.shard"
            and (operators[stop].origin or operators[stop].name)
            == (operators[at].origin or operators[at].name)
            and stop - at < 64
        ):
            stop += 1
        return tuple(operators[at:stop])

    def _inputs(self, origin: Origin, outside: Sequence[str]) -> tuple[list[str | None], list[int]]:
        """For each of the model's inputs, the device's name of it; and those that are missing."""
        left = list(outside)
        chosen: list[str | None] = []
        for own in origin.operator.inputs:
            term = self.whole.terms[origin.names[own]]
            fits = [name for name in left if self.total(name) == term]
            again = [name for name in outside if self.total(name) == term]
            if fits:
                left.remove(fits[0])
            chosen.append(next(iter((*fits, *again)), None))
        return chosen, [number for number, name in enumerate(chosen) if name is None]

    def _step(
        self,
        operator: Operator,
        origin: Origin,
        given: Sequence[Held | None],
        bare: bool,
        run: tuple[Operator, ...],
    ) -> Step | None:
        """The operator typed, once for all calls that hold alike."""
        places: list[Place] = []
        pending: list[tuple[Pending, ...]] = []
        for own, held in zip(origin.operator.inputs, given, strict=True):
            axes = self.whole.axes(origin, own)
            if held is None:
                places.append(place(axes, [{}] * len(axes)))
                pending.append(())
                continue
            fitted = fit(held.place, axes)
            if fitted is None:
                message = f"{held.label!r} does not lie along the axes of {own!r}"
                self.blame("type", operator, message)
                return None
            places.append(fitted)
            pending.append(_anonymous(held.pending))
        signature = origin.bound.signature
        claimed = self._claimed(run, origin) if signature is not None and signature.free else ()
        key = (
            origin.block.name, origin.operator.name, bare, tuple(map(id, places)), tuple(pending),
            claimed, self.program.name if claimed else "",
        )  # fmt: skip
        if key not in self.steps:
            self.steps[key] = type_operator(
                origin.bound,
                self.whole.dimensions.axes[origin.block.name],
                tuple(places),
                tuple(pending),
                claimed,
                bare,
                self.ranges,
            )
        return self.steps[key]

    def _claimed(self, run: tuple[Operator, ...], origin: Origin) -> tuple[tuple[Size, ...], ...]:
        """The recorded shapes of the operator's outputs."""
        names = [name for member in run for name in member.outputs]
        names = names[len(names) - len(origin.operator.outputs) :]
        tensors = self.program.tensors
        return tuple(tensors[name].shape if name in tensors else () for name in names)

    def _accept(
        self,
        run: tuple[Operator, ...],
        origin: Origin,
        step: Step,
        chosen: Sequence[str | None],
        bare: bool,
    ) -> int:
        """Compare the operators with what they must be, and note what they define."""
        forms = Forms(origin, step, chosen, self.program.tensors, self.same)
        count, names, fault = forms.match(run)
        if fault is not None:
            operator, kind, message = fault
            self.blame(kind, operator, message, origin.module)
        for number, (own, name) in enumerate(zip(origin.operator.outputs, names, strict=True)):
            outer = origin.names[own]
            term = mark(outer) if bare else self.whole.terms[outer]
            where = step.outputs[number]
            if step.contributions:
                pending = Pending(term, outer, step.reduction, step.contributions)
                held = Held(where, 0, (pending,), outer)
            else:
                held = Held(where, term, (), outer)
            self.define(run[min(count, len(run)) - 1], name, held)
            recorded = self.program.tensors.get(name)
            expected = origin.block.tensors[own].dtype
            if recorded is not None and recorded.dtype != expected:
                self.blame("shape", run[0], f"{name!r} is {recorded.dtype}, not {expected}")
        return count

    def _give_up(self, run: tuple[Operator, ...], origin: Origin) -> int:
        """Leave the values of operators unknown; those that use them are not blamed."""
        for member in run:
            self.values.update(dict.fromkeys(member.outputs))
        return len(run)


def _anonymous(pending: tuple[Pending, ...]) -> tuple[Pending, ...]:
    """Pending terms without the values' names, so that all layers' are alike."""
    return tuple(Pending(0, "", term.reduction, term.contributions) for term in pending)
