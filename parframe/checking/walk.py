"""One program retyped: what every local value is, derived operator by operator.

A walk stops at each communication operator and yields it with what the device puts in; whoever
follows all programs answers with what comes out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import attrs
import sympy

from parframe.checking.compare import Forms
from parframe.checking.findings import Finding
from parframe.checking.held import (
    Held,
    Pending,
    Place,
    Ranges,
    add_marks,
    mark,
    merge,
    place,
    sizes_of,
)
from parframe.checking.reading import read
from parframe.checking.samples import Bindings, numbers, same
from parframe.checking.step import Step, type_operator
from parframe.checking.whole import Origin, Whole, aligned_mark, alignment, is_sum
from parframe.graph import Operator, Ref
from parframe.layout import Axis, Pieces, Range, axis_size
from parframe.plan import COMMUNICATION, Part, Program
from parframe.sizes import Size

_VIEWS = frozenset({"aten.view.default", "aten.reshape.default"})


@attrs.frozen
class Request:
    """A communication operator, and what the device puts into it (None: nothing, or unknown)."""

    operator: Operator
    given: Held | None


Walk = Generator[Request, Held | None, None]


class Walker:
    """What is known of one program's values.

    Parameters
    ----------
    whole
        The model.
    program
        The program.
    ranks
        The devices that have it.
    steps
        Operators typed before, by all that their types depend on.
    bindings
        The symbols of those devices, in numbers.
    """

    def __init__(
        self,
        whole: Whole,
        program: Program,
        ranks: tuple[int, ...],
        steps: dict[object, Step],
        bindings: Sequence[Bindings],
    ) -> None:
        self.whole = whole
        self.program = program
        self.ranks = ranks
        self.bindings = bindings
        self.steps = steps
        self.values: dict[str, Held | None] = {}
        self.homes: dict[str, list[Range]] = {}
        self.findings: list[Finding] = []
        self.position = 0
        self._plains: dict[Place, Place] = {}
        self.origins = [
            whole.origin(operator) if operator.target not in COMMUNICATION else None
            for operator in program.operators
        ]

    def blame(self, kind: str, operator: Operator | None, message: str, module: str = "") -> None:
        """Note a finding."""
        name = operator.name if operator is not None else ""
        module = module or (operator.module if operator is not None else "")
        self.findings.append(Finding(kind, self.ranks, name, module, message))

    def same(self, left: Size, right: Size) -> bool:
        """Whether two sizes are the same expression, or the same number on every device."""
        if same(left, right):
            return True
        if isinstance(left, int) and isinstance(right, int):
            return False
        try:
            return all(numbers(left, own) == numbers(right, own) for own in self.bindings)
        except KeyError:
            return False

    def walk(self) -> Walk:
        """Type the program; communications are asked for."""
        for part in (*self.program.inputs, *self.program.parameters):
            self._enter(part)
        operators = self.program.operators
        while self.position < len(operators):
            operator = operators[self.position]
            if operator.target in COMMUNICATION:
                source = operator.args.get("input")
                given = self.values.get(source.name) if isinstance(source, Ref) else None
                result = yield Request(operator, given)
                for name in operator.outputs:
                    self._define(operator, name, result)
                self.position += 1
            elif operator.target == "parframe.shard":
                self._shard(operator)
                self.position += 1
            else:
                self.position += self._compute(self.position)

    # what the device is given ---------------------------------------------------------------

    def _enter(self, part: Part) -> None:
        axes = self.whole.outer.get(part.whole)
        if axes is None or part.whole not in self.whole.terms:
            self.values[part.name] = None
            return
        where = place_of(axes, part)
        if where is None:
            self.blame(
                "weights" if part.whole in self.whole.graph.parameters else "type",
                None,
                f"the region of {part.name!r} does not lie along the dimensions of {part.whole!r}",
            )
            self.values[part.name] = None
            return
        self._define(None, part.name, Held(where, self.whole.terms[part.whole], (), part.whole))

    def _define(self, operator: Operator | None, name: str, held: Held | None) -> None:
        """Note what a name holds; its recorded shape must be that."""
        if held is not None:
            held = attrs.evolve(held, place=self._plain(held.place))
        self.values[name] = held
        if held is None:
            return
        for ranges in held.place.ranges:
            for dim, piece in ranges:
                known = self.homes.setdefault(dim, [])
                if piece not in known:
                    known.append(piece)
        recorded = self.program.tensors.get(name)
        if recorded is None:
            return
        shape = held.place.shape
        if len(shape) != len(recorded.shape) or not all(map(self.same, shape, recorded.shape)):
            self.blame(
                "shape", operator,
                f"{name!r} is recorded as {_text(recorded.shape)}, but is {_text(shape)}",
            )  # fmt: skip

    def _plain(self, where: Place) -> Place:
        """The same place without ranges that are all of a dimension on every device."""
        if where not in self._plains:
            kept = [
                {
                    dim: piece
                    for dim, piece in ranges
                    if not self.same(piece.start, 0)
                    or not self.same(piece.stop, sizes_of(axis)[dim])
                }
                for axis, ranges in zip(where.axes, where.ranges, strict=True)
            ]
            self._plains[where] = place(where.axes, kept)
        return self._plains[where]

    def _shard(self, operator: Operator) -> None:
        source = operator.args.get("input")
        held = self.values.get(source.name) if isinstance(source, Ref) else None
        part = operator.args.get("part")
        (output,) = operator.outputs
        if held is None or not isinstance(part, tuple):
            self.values[output] = None
            return
        found = _pieces(held.place.axes, part, held.place.ranges)
        if found is None:
            self.blame("type", operator, f"the part of {held.label} lies across its dimensions")
            self.values[output] = None
            return
        self._define(operator, output, attrs.evolve(held, place=place(held.place.axes, found)))
        self._same_dtype(operator)

    def _same_dtype(self, operator: Operator) -> None:
        tensors = self.program.tensors
        kinds = {tensors[n].dtype for n in (*operator.inputs, *operator.outputs) if n in tensors}
        if len(kinds) > 1:
            self.blame("shape", operator, f"has the dtypes {', '.join(sorted(kinds))}")

    # operators of the model -------------------------------------------------------------------

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
        if is_sum(operator) and (addend or is_sum(origin.operator)):
            self._add(operator)
            return 1
        if addend and operator.target in _VIEWS and origin.operator.target not in _VIEWS:
            self._align(operator, origin)
            return 1
        return self._served(at, operator, origin)

    def _add(self, operator: Operator) -> None:
        """The sum of two values, whichever terms they are."""
        (output,) = operator.outputs
        held = [self.values.get(name) for name in operator.inputs]
        left, right = held
        if left is None or right is None:
            self.values[output] = None
            return
        if bool(left.pending) != bool(right.pending):
            partial, complete = (left, right) if left.pending else (right, left)
            self.blame(
                "partial", operator,
                f"{complete.label or 'a complete value'} is added to {partial.label}, which is "
                "still to be reduced, so that every device would add it",
            )  # fmt: skip
        where = self._broadcast(operator, left.place, right.place)
        total = Held(
            where,
            add_marks(left.done, right.done),
            merge(left.pending, right.pending),
            operator.name,
        )
        self._define(operator, output, total)
        self._same_dtype(operator)

    def _broadcast(self, operator: Operator, left: Place, right: Place) -> Place:
        rank = max(len(left.axes), len(right.axes))
        axes: list[Axis] = []
        pieces: list[Pieces] = []
        for back in range(rank, 0, -1):
            found = [
                (where.axes[-back], where.ranges[-back])
                for where in (left, right)
                if back <= len(where.axes) and where.axes[-back]
            ] or [((), ())]
            if any(other != found[0] for other in found[1:]):
                self.blame("type", operator, _clash(operator, found))
            axes.append(found[0][0])
            pieces.append(dict(found[0][1]))
        return place(tuple(axes), pieces)

    def _align(self, operator: Operator, origin: Origin) -> None:
        """An addend given the axes that it is added along."""
        (output,) = operator.outputs
        held = self.values.get(operator.inputs[0])
        signature = origin.bound.signature
        if held is None or signature is None or signature.addend is None:
            self.values[output] = None
            return
        own = origin.operator.inputs[signature.addend]
        places = alignment(origin.bound)
        if held.total != self.whole.terms[origin.names[own]] or held.pending:
            self.blame(
                "type", operator, f"{held.label} is not the addend of {origin.operator.name}"
            )
        rank = -min(places, default=0)
        axes: list[Axis] = [()] * rank
        pieces: list[Pieces] = [{}] * rank
        for number, back in enumerate(places):
            axes[back] = held.place.axes[number]
            pieces[back] = held.place.pieces(number)
        where = place(tuple(axes), pieces)
        size = operator.args.get("size", operator.args.get("shape"))
        if not isinstance(size, tuple) or len(size) != rank or not self._sizes(size, where.shape):
            self.blame("argument", operator, f"gives the shape {size}, not {_text(where.shape)}")
        term = aligned_mark(held.total, places)
        self._define(operator, output, Held(where, term, (), held.label))

    def _sizes(self, claimed: Sequence[object], sizes: Sequence[Size]) -> bool:
        """Whether sizes among an operator's arguments are these."""
        return all(
            isinstance(one, int | sympy.Expr) and self.same(one, size)
            for one, size in zip(claimed, sizes, strict=True)
        )

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
            own = origin.operator.inputs[missing[0]]
            self.blame(
                "type", operator,
                f"takes {', '.join(self._label(name) for name in outside) or 'nothing'} "
                f"where {origin.names[own]!r} belongs",
            )  # fmt: skip
            return self._give_up(run, origin)
        step = self._step(operator, origin, chosen, bare, run)
        if step is None:
            return self._give_up(run, origin)
        for kind, message in step.faults:
            self.blame(kind, operator, message, origin.module)
        return self._accept(run, origin, step, chosen, bare)

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

    def _label(self, name: str) -> str:
        held = self.values.get(name)
        return held.label or name if held is not None else name

    def _inputs(self, origin: Origin, outside: Sequence[str]) -> tuple[list[str | None], list[int]]:
        """For each of the model's inputs, the device's name of it; and those that are missing."""
        left = list(outside)
        chosen: list[str | None] = []
        for own in origin.operator.inputs:
            term = self.whole.terms[origin.names[own]]
            fits = [name for name in left if self._total(name) == term]
            again = [name for name in outside if self._total(name) == term]
            if fits:
                left.remove(fits[0])
            chosen.append(next(iter((*fits, *again)), None))
        return chosen, [number for number, name in enumerate(chosen) if name is None]

    def _total(self, name: str) -> int | None:
        held = self.values.get(name)
        return held.total if held is not None else None

    def _step(
        self,
        operator: Operator,
        origin: Origin,
        chosen: Sequence[str | None],
        bare: bool,
        run: tuple[Operator, ...],
    ) -> Step | None:
        """The operator typed, once for all calls that hold alike."""
        places: list[Place] = []
        pending: list[tuple[Pending, ...]] = []
        for own, name in zip(origin.operator.inputs, chosen, strict=True):
            held = self.values.get(name) if name is not None else None
            axes = self.whole.axes(origin, own)
            if held is None:
                places.append(place(axes, [{}] * len(axes)))
                pending.append(())
                continue
            fitted = fit(held.place, axes)
            if fitted is None:
                self.blame("type", operator, f"{name!r} does not lie along the axes of {own!r}")
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
                self._home,
            )
        return self.steps[key]

    def _claimed(self, run: tuple[Operator, ...], origin: Origin) -> tuple[tuple[Size, ...], ...]:
        """The recorded shapes of the operator's outputs."""
        names = [name for member in run for name in member.outputs]
        names = names[len(names) - len(origin.operator.outputs) :]
        tensors = self.program.tensors
        return tuple(tensors[name].shape if name in tensors else () for name in names)

    def _home(self, dim: str, length: Size) -> Range | None:
        """A range of this length that the device holds of a dimension."""
        return next(
            (piece for piece in self.homes.get(dim, ()) if same(piece.length, length)), None
        )

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
            self._define(run[min(count, len(run)) - 1], name, held)
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


def place_of(axes: tuple[Axis, ...], part: Part) -> Place | None:
    """The place that a part's region means."""
    found = _pieces(axes, part.region, [()] * len(axes))
    return place(axes, found) if found is not None else None


def _pieces(
    axes: tuple[Axis, ...], regions: Sequence[object], frame: Sequence[Ranges]
) -> list[Mapping[str, Range]] | None:
    """The pieces that regions of a tensor mean, axis by axis."""
    if len(regions) != len(axes):
        return None
    result: list[Mapping[str, Range]] = []
    for axis, region, outer in zip(axes, regions, frame, strict=True):
        found = read(axis, region, dict(outer)) if isinstance(region, tuple) else None
        if found is None:
            return None
        result.append(found)
    return result


def fit(where: Place, axes: tuple[Axis, ...]) -> Place | None:
    """The same part under the axes of another use of the tensor; None where they do not fit."""
    if where.axes == axes:
        return where if where.axes is axes else place(axes, map(dict, where.ranges))
    if len(where.axes) != len(axes):
        return None
    for own, axis, ranges in zip(where.axes, axes, where.ranges, strict=True):
        if not same(axis_size(own), axis_size(axis)):
            return None
        if ranges and (own != axis and not {dim for dim, _ in ranges} <= set(sizes_of(axis))):
            return None
    fitted = place(axes, map(dict, where.ranges))
    return fitted if all(map(same, fitted.shape, where.shape)) else None


def _anonymous(pending: tuple[Pending, ...]) -> tuple[Pending, ...]:
    """Pending terms without the values' names, so that all layers' are alike."""
    return tuple(Pending(0, "", term.reduction, term.contributions) for term in pending)


def _clash(operator: Operator, found: Sequence[tuple[Axis, Ranges]]) -> str:
    texts = [
        ", ".join(f"{dim} {piece.start} to {piece.stop}" for dim, piece in ranges) or "whole"
        for _, ranges in found
    ]
    return f"adds different parts: {texts[0]} and {texts[1]}"


def _text(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
