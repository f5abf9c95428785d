"""Numbers written as a program's symbols again: what each device holds in, one type out."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from parframe.checking.concrete_types import Concrete, Measured, MeasuredShare, measure_range
from parframe.checking.program_types import Walker
from parframe.checking.samples import COUNT, Bindings, Numbers, numbers
from parframe.checking.tensor_types import Held, Pending, Share, place, sizes_of
from parframe.layout import Range
from parframe.plan import Plan
from parframe.sizes import Size, offset, symbol


class Rewriter:
    """Finds the symbols of programs that have certain values on their devices.

    Where a program has none, a new symbol is put into the devices' bindings.
    """

    def __init__(
        self,
        plan: Plan,
        symbols: Bindings,
        bindings: Sequence[MutableMapping[str, Numbers]],
    ) -> None:
        self.plan = plan
        self.symbols = symbols
        self.bindings = bindings
        self._ranges: dict[tuple[str, str], list[tuple[Range, tuple[Measured, ...]]]] = {}
        self._fresh = 0

    def held(self, walker: Walker, results: Sequence[Concrete]) -> Held | None:
        """What all devices of a program hold, in its symbols; None if they hold different sums."""
        first = results[0]
        if any(
            other.axes != first.axes
            or other.done != first.done
            or [t.term for t in other.pending] != [t.term for t in first.pending]
            for other in results
        ):
            return None
        pieces: list[dict[str, Range]] = []
        for number, axis in enumerate(first.axes):
            own: dict[str, Range] = {}
            sizes = sizes_of(axis)
            dims = sorted({dim for result in results for dim, _ in result.ranges[number]})
            for dim in dims:
                own[dim] = self._range(
                    walker, dim, sizes[dim], [result.range(number, dim) for result in results]
                )
            pieces.append(own)
        pending: list[Pending] = []
        for number, term in enumerate(first.pending):
            found = self._contributions(walker, results, number)
            if found is None:
                return None
            pending.append(Pending(term.term, term.label, term.reduction, frozenset(found)))
        return Held(place(first.axes, pieces), first.done, tuple(pending), first.label)

    def _contributions(
        self, walker: Walker, results: Sequence[Concrete], number: int
    ) -> list[tuple[Share, ...]] | None:
        """The contributions of one pending term, in the program's symbols.

        None if devices hold different numbers of them.
        """
        groups = [_by_keys(result.pending[number].contributions) for result in results]
        found = []
        for keys in sorted({keys for group in groups for keys in group}):
            parts = [group.get(keys, []) for group in groups]
            most = max(len(own) for own in parts)
            if any(len(own) not in ((0, 1) if most == 1 else (most,)) for own in parts):
                return None
            for which in range(most):
                shares = []
                for source, dim, size in keys:
                    measured = [own[which][source, dim, size] if own else None for own in parts]
                    total = self._size(walker, size)
                    piece = self._range(walker, dim, total, measured)
                    shares.append(Share(source, dim, total, piece))
                found.append(tuple(shares))
        return found

    def _size(self, walker: Walker, size: Numbers) -> Size:
        """A size that is the same on all devices."""
        if len(set(size)) == 1:
            return size[0]
        for name, value in self.symbols.items():
            if value == size:
                return symbol(name)
        return self._name(walker, [size] * len(walker.ranks))

    def _range(
        self, walker: Walker, dim: str, size: Size, measured: Sequence[Measured | None]
    ) -> Range:
        """A range that has these numbers on the devices of a program."""
        whole: Measured = ((0,) * COUNT, numbers(size, self.symbols))
        wanted = tuple(piece if piece is not None else whole for piece in measured)
        if all(piece == wanted[0] for piece in wanted) and all(
            len(set(end)) == 1 for end in wanted[0]
        ):
            return Range(wanted[0][0][0], wanted[0][1][0])
        known = self._ranges.setdefault((walker.program.name, dim), [])
        seen = {piece for piece, _ in known}
        for piece in walker.homes.get(dim, ()):
            if piece not in seen:
                known.append((piece, self._measured(walker, piece)))
        for piece, found in known:
            if found == wanted:
                return piece
        start = self._name(walker, [piece[0] for piece in wanted])
        length = self._length(walker, [
            tuple(b - a for a, b in zip(*piece, strict=True)) for piece in wanted
        ])  # fmt: skip
        piece = Range(start, start + length)
        known.append((piece, wanted))
        return piece

    def _measured(self, walker: Walker, piece: Range) -> tuple[Measured, ...]:
        return tuple(measure_range(piece, self.bindings[rank]) for rank in walker.ranks)

    def _length(self, walker: Walker, values: Sequence[Numbers]) -> Size:
        if all(value == values[0] for value in values) and len(set(values[0])) == 1:
            return values[0][0]
        return self._name(walker, values)

    def _name(self, walker: Walker, values: Sequence[Numbers]) -> Size:
        """A symbol with these values on the devices: one of the program's, or a new one."""
        names = set.intersection(*(set(self.plan.devices[rank].bindings) for rank in walker.ranks))
        for name in sorted(names):
            if all(
                self.bindings[rank][name] == value
                for rank, value in zip(walker.ranks, values, strict=True)
            ):
                return offset(name)
        self._fresh += 1
        name = f"checked{self._fresh}_start"
        for rank, value in zip(walker.ranks, values, strict=True):
            self.bindings[rank][name] = value
        return offset(name)


def _by_keys(
    contributions: frozenset[tuple[MeasuredShare, ...]],
) -> dict[tuple[tuple[str, str, Numbers], ...], list[dict[tuple[str, str, Numbers], Measured]]]:
    """Contributions by what they are shares of, each kind in order."""
    found: dict[Any, list[Any]] = {}
    for contribution in sorted(contributions):
        found.setdefault(tuple(key for key, _ in contribution), []).append(dict(contribution))
    return found
