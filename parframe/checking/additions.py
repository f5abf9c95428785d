"""Sums typed: whatever terms are added, in whatever order, a sum is known by all of them."""

from __future__ import annotations

from collections.abc import Sequence

from parframe.checking.checked_model import Origin, aligned_mark, alignment
from parframe.checking.shard_regions import shape_text
from parframe.checking.tensor_types import Held, Place, Ranges, add_marks, merge, place
from parframe.checking.value_types import Values
from parframe.graph import Operator
from parframe.layout import Axis, Pieces


class Sums(Values):
    """The values of a program, and how two of them are added."""

    def add(self, operator: Operator, origin: Origin) -> None:
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
        self.define(operator, output, total)
        own = (*origin.operator.inputs, *origin.operator.outputs)
        if len({origin.block.tensors[name].dtype for name in own}) == 1:
            self.same_dtype(operator)

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
                self.blame("type", operator, _clash(found))
            axes.append(found[0][0])
            pieces.append(dict(found[0][1]))
        return place(tuple(axes), pieces)

    def align(self, operator: Operator, origin: Origin) -> None:
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
        if not isinstance(size, tuple) or len(size) != rank or not self.are(size, where.shape):
            shape = shape_text(where.shape)
            self.blame("argument", operator, f"gives the shape {size}, not {shape}")
        term = aligned_mark(held.total, places)
        self.define(operator, output, Held(where, term, (), held.label))


def _clash(found: Sequence[tuple[Axis, Ranges]]) -> str:
    texts = [
        ", ".join(f"{dim} {piece.start} to {piece.stop}" for dim, piece in ranges) or "whole"
        for _, ranges in found
    ]
    return f"adds different parts: {texts[0]} and {texts[1]}"
