"""What one program's values hold, noted as they are given or made."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import sympy

from parframe.checking.checked_model import Whole
from parframe.checking.findings import Finding
from parframe.checking.samples import Bindings, Numbers, numbers, same
from parframe.checking.shard_regions import pieces_of, place_of, shape_text
from parframe.checking.tensor_types import Held, Place, place, sizes_of
from parframe.graph import Operator, Ref
from parframe.layout import Range
from parframe.plan import Part, Program
from parframe.sizes import Size


class Values:
    """What is known of one program's values.

    Parameters
    ----------
    whole
        The model.
    program
        The program.
    ranks
        The devices that have it.
    bindings
        The symbols of those devices, in numbers.
    """

    def __init__(
        self,
        whole: Whole,
        program: Program,
        ranks: tuple[int, ...],
        bindings: Sequence[Bindings],
    ) -> None:
        self.whole = whole
        self.program = program
        self.ranks = ranks
        self.bindings = bindings
        self.values: dict[str, Held | None] = {}
        self.homes: dict[str, list[Range]] = {}
        self.findings: list[Finding] = []
        self._plains: dict[Place, Place] = {}
        self._seen: dict[tuple[str, tuple[tuple[Numbers, Numbers], ...]], Range] = {}

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

    def enter(self, part: Part) -> None:
        """Note what a part of an input or a weight holds, by its region."""
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
        self.define(None, part.name, Held(where, self.whole.terms[part.whole], (), part.whole))

    def define(self, operator: Operator | None, name: str, held: Held | None) -> None:
        """Note what a name holds; its recorded shape must be that."""
        if held is not None:
            held = attrs.evolve(held, place=self.plain(held.place))
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
                f"{name!r} is recorded as {shape_text(recorded.shape)}, but is {shape_text(shape)}",
            )  # fmt: skip

    def plain(self, where: Place) -> Place:
        """The same place in the ranges seen first, without those that are all of a dimension.

        Two ranges that are the same numbers on every device are one, however they are written.
        """
        if where not in self._plains:
            kept = [
                {
                    dim: self._first(dim, piece)
                    for dim, piece in ranges
                    if not self.same(piece.start, 0)
                    or not self.same(piece.stop, sizes_of(axis)[dim])
                }
                for axis, ranges in zip(where.axes, where.ranges, strict=True)
            ]
            self._plains[where] = place(where.axes, kept)
        return self._plains[where]

    def _first(self, dim: str, piece: Range) -> Range:
        """The range of a dimension, as it was first written, that has these numbers."""
        ends = tuple((numbers(piece.start, own), numbers(piece.stop, own)) for own in self.bindings)
        return self._seen.setdefault((dim, ends), piece)

    def shard(self, operator: Operator) -> None:
        """Note what a local cut of a value holds."""
        source = operator.args.get("input")
        held = self.values.get(source.name) if isinstance(source, Ref) else None
        part = operator.args.get("part")
        (output,) = operator.outputs
        if held is None or not isinstance(part, tuple):
            self.values[output] = None
            return
        found = pieces_of(held.place.axes, part, held.place.ranges)
        if found is None:
            self.blame("type", operator, f"the part of {held.label} lies across its dimensions")
            self.values[output] = None
            return
        self.define(operator, output, attrs.evolve(held, place=place(held.place.axes, found)))
        self.same_dtype(operator)

    def same_dtype(self, operator: Operator) -> None:
        """Blame an operator whose values are recorded with several dtypes."""
        tensors = self.program.tensors
        kinds = {tensors[n].dtype for n in (*operator.inputs, *operator.outputs) if n in tensors}
        if len(kinds) > 1:
            self.blame("shape", operator, f"has the dtypes {', '.join(sorted(kinds))}")

    def are(self, claimed: Sequence[object], sizes: Sequence[Size]) -> bool:
        """Whether sizes among an operator's arguments are these."""
        return all(
            isinstance(one, int | sympy.Expr) and self.same(one, size)
            for one, size in zip(claimed, sizes, strict=True)
        )

    def label(self, name: str) -> str:
        """Tell what the model calls a value."""
        held = self.values.get(name)
        return held.label or name if held is not None else name

    def total(self, name: str) -> int | None:
        """Tell the number that stands for a value's terms; None where it is unknown."""
        held = self.values.get(name)
        return held.total if held is not None else None

    def ranges(self, dim: str) -> Sequence[Range]:
        """Tell the ranges that the device holds of a dimension."""
        return self.homes.get(dim, ())
