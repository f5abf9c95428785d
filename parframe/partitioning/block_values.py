"""Values of a block during its placement: their placements, and conversions between these.

A partial sum is reduced once, as late as linearity allows. A sum with terms that are not partial is
*deferred* until it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.partitioning.actions import Action, Add, Convert, Partial, Placement
from parframe.partitioning.cuts import Cut
from parframe.partitioning.split_options import Axes, carries

Free = Callable[[str, frozenset[int]], frozenset[int]]
"""Function from a weight or input, and the cuts that a use wants, to its stored cuts."""


@attrs.frozen
class Deferred:
    """Sum whose partial terms are added, and whose other terms are added after the reduction."""

    partial: str
    layout: Placement
    rest: tuple[tuple[str, tuple[int, ...], Operator], ...]


@attrs.define
class Value:
    """State of a value: its local names by placement, or its deferred sum."""

    free: bool = False
    variants: dict[Placement, str] = attrs.field(factory=dict)
    deferred: Deferred | None = None

    @property
    def partial(self) -> Placement | None:
        """Partial placement of the value, if it has no other."""
        if self.deferred is not None:
            return self.deferred.layout
        if self.variants and all(layout.partial for layout in self.variants):
            return next(iter(self.variants))
        return None


class Values:
    """Values of one block, or those between calls, and the actions that make them.

    New local names have ``mark`` in them: a block's must differ from those between calls.
    """

    def __init__(self, axes: Axes, cuts: tuple[Cut, ...], free: Free, mark: str = "") -> None:
        self.mark = mark
        self.axes = axes
        self.cuts = cuts
        self.free = free
        self.index = 0
        self.actions: list[Action] = []
        self._known: dict[str, Value] = {}
        self._count = 0

    def __getitem__(self, value: str) -> Value:
        return self._known[value]

    def __setitem__(self, value: str, state: Value) -> None:
        self._known[value] = state

    def restrict(self, value: str, cuts: Iterable[int]) -> frozenset[int]:
        """Return the cuts that split a value; an inner cut needs its outer cut."""
        wanted = frozenset(c for c in cuts if carries(self.axes[value], self.cuts[c]))
        return frozenset(c for c in wanted if self.fits(value, c, wanted))

    def fits(self, value: str, cut: int, among: Iterable[int]) -> bool:
        """Tell whether a value that is split by some cuts may be split by one more."""
        outer = self.cuts[cut].outer
        while outer is not None:
            if outer.rank not in among and carries(self.axes[value], outer):
                return False
            outer = outer.outer
        return True

    def fresh(self, value: str) -> str:
        """Return a new local name for a value."""
        self._count += 1
        return f"{value}@{self.mark}{self._count}"

    def layouts(self, value: str) -> list[Placement]:
        """List the placements that a value has now."""
        state = self[value]
        return [state.deferred.layout] if state.deferred is not None else list(state.variants)

    def layout_of(self, value: str) -> Placement:
        """Return the placement in which an output of the block is left."""
        variants = self[value].variants
        return next(layout for layout in variants if not layout.partial)

    def need(self, value: str, cuts: frozenset[int]) -> str:
        """Convert a value to exactly these cuts, not partial, and return its local name."""
        state = self[value]
        layout = Placement(self.restrict(value, cuts))
        if layout in state.variants:
            return state.variants[layout]
        if state.deferred is not None:
            return self.settle(value, layout)
        if state.free:
            stored = Placement(self.restrict(value, self.free(value, layout.cuts)))
            state.variants.setdefault(stored, value if not state.variants else self.fresh(value))
            if layout in state.variants:
                return state.variants[layout]
        source = min(state.variants, key=lambda have: (_distance(have, layout), sorted(have.cuts)))
        name = self.convert(value, state.variants[source], source, layout)
        state.variants[layout] = name
        return name

    def settle(self, value: str, layout: Placement) -> str:
        """Reduce the partial part of a deferred value to a placement, and add its other terms."""
        state = self[value]
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
                    Placement(self.restrict(addend, layout.cuts)), aligned, operator,
                )
            )  # fmt: skip
            name = output
        state.deferred = None
        state.variants = {layout: name}
        return name

    def convert(self, value: str, source: str, before: Placement, after: Placement) -> str:
        """Convert a value from one placement to another, and return its last local name."""
        have = before
        name = source

        def step(
            kind: str,
            then: Placement,
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
            if not busy & set(self.cuts[c].axes) and self.fits(value, c, have.cuts):
                step("shard", Placement(have.cuts | {c}, have.partial), come=c)
        for partial, scatter in self.reductions(value, have, after):
            rest = have.partial - partial
            axes = tuple(axis for axes, _ in sorted(partial) for axis in axes)
            one = (axes, next(iter(partial))[1])
            if scatter is not None:
                then = Placement(have.cuts | {scatter}, rest)
                step("reduce_scatter", then, come=scatter, partial=one)
            else:
                step("all_reduce", Placement(have.cuts, rest), partial=one)
        for c in sorted(have.cuts - after.cuts, reverse=True):
            other = self.same_axes(self.cuts[c].axes, after.cuts - have.cuts)
            if other is not None and self.fits(value, other, have.cuts - {c}):
                step("all_to_all", Placement(have.cuts - {c} | {other}), gone=c, come=other)
            else:
                step("all_gather", Placement(have.cuts - {c}), gone=c)
        for c in sorted(after.cuts - have.cuts):
            step("shard", Placement(have.cuts | {c}), come=c)
        return name

    def reductions(
        self, value: str, have: Placement, after: Placement
    ) -> Iterator[tuple[frozenset[Partial], int | None]]:
        """Yield the reductions of a partial value in order, with the cut that scatters each result.

        Reductions without such a cut are done in one step for each kind.
        """
        cuts, left = have.cuts, set(have.partial)
        for c in sorted(after.cuts - have.cuts):
            found = [one for one in left if set(one[0]) == set(self.cuts[c].axes)]
            if len(found) == 1 and self.fits(value, c, cuts):
                yield frozenset(found), c
                left -= set(found)
                cuts |= {c}
        for how in sorted({how for _, how in left}):
            yield frozenset(one for one in left if one[1] == how), None

    def convert_partial(self, value: str, name: str, have: Placement, cuts: frozenset[int]) -> str:
        """Change the cuts of a partial value."""
        now = have
        for c in (*sorted(have.cuts - cuts), *sorted(cuts - have.cuts)):
            kind, gone, come = ("all_gather", c, None) if c in have.cuts else ("shard", None, c)
            output, then = self.fresh(value), Placement(now.cuts ^ {c}, now.partial)
            self.actions.append(
                Convert(self.index, kind, value, name, output, now, then, gone, come)
            )
            name, now = output, then
        self[value].variants[now] = name
        return name

    def same_axes(self, axes: tuple[str, ...], among: Iterable[int]) -> int | None:
        """Return the first of some cuts that is over exactly these axes."""
        return next((c for c in sorted(among) if set(self.cuts[c].axes) == set(axes)), None)

    def finish(self, value: str, may: frozenset[int]) -> None:
        """Convert an output of the block so that it is not partial.

        It is reduced and scattered if it ``may`` have a cut over the axes of the reduction.
        """
        state = self[value]
        partial = state.partial
        if partial is None:
            if state.free:
                self.need(value, frozenset())
            return
        busy = {axis for c in partial.cuts for axis in self.cuts[c].axes}
        cuts = set(partial.cuts)
        for axes, _ in sorted(partial.partial):
            fit = self.same_axes(axes, self.restrict(value, may))
            if fit is not None and not busy & set(axes):
                cuts.add(fit)
        self.need(value, frozenset(cuts))


def _distance(have: Placement, want: Placement) -> tuple[int, int]:
    """Return the number of communications of a conversion, then of local slices."""
    talk = len(have.partial) + len(have.cuts - want.cuts)
    return talk, len(want.cuts - have.cuts)
