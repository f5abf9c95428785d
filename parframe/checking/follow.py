"""All programs retyped together: walks in, what every program's values are out.

A walk waits at a communication operator until the programs of the other members have come to
theirs; then what each device holds is put into numbers, group by group, and what comes out is
written in the program's own symbols again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from parframe.checking.findings import Finding
from parframe.checking.groups import Outcome, exchange, gather, reduce, scatter
from parframe.checking.held import Held, Pending, Share, place, sizes_of
from parframe.checking.numeric import (
    Concrete,
    Measured,
    Parts,
    concrete,
    measure_range,
    measure_regions,
)
from parframe.checking.samples import COUNT, Numbers, numbers, sample_symbols, symbols_of_graph
from parframe.checking.step import Step
from parframe.checking.walk import Request, Walk, Walker
from parframe.checking.whole import Whole
from parframe.graph import Operator
from parframe.layout import Range, Region
from parframe.mesh import Mesh
from parframe.plan import Plan
from parframe.sizes import Size, offset, symbol

Key = tuple[str, ...]
"""A program's name, and what its communication is known by to the other side."""


@attrs.frozen
class Arrival:
    """A program that has come to a communication."""

    operator: Operator
    given: Held | None


class Followed:
    """The programs of a plan with all their values typed.

    ``walkers`` has what every program's values are, ``bindings`` every device's symbols in
    numbers, ``stuck`` the programs that could not be followed to their end.
    """

    def __init__(self, plan: Plan, whole: Whole) -> None:
        self.plan = plan
        self.whole = whole
        self.mesh: Mesh = plan.mesh
        self.symbols = sample_symbols(symbols_of_graph(plan.graph))
        self.bindings = [
            {
                **self.symbols,
                **{
                    name: numbers(size, self.symbols) for name, size in device.bindings.items()
                },
            }
            for device in plan.devices
        ]
        self.program_of = [device.program for device in plan.devices]
        ranks: dict[str, list[int]] = {}
        for device in plan.devices:
            ranks.setdefault(device.program, []).append(device.rank)
        steps: dict[object, Step] = {}
        self.walkers = {
            name: Walker(whole, plan.programs[name], tuple(found), steps)
            for name, found in ranks.items()
        }
        self.findings: list[Finding] = []
        self.arrivals: dict[Key, Arrival] = {}
        self.stuck: tuple[str, ...] = ()
        self._groups: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = {}
        self._ranges: dict[tuple[str, str], list[tuple[Range, tuple[Measured, ...]]]] = {}
        self._fresh = 0
        self._follow()

    def group(self, rank: int, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The ranks of a group."""
        key = (rank, axes)
        if key not in self._groups:
            members = self.mesh.group(rank, axes)
            for member in members:
                self._groups[member, axes] = members
        return self._groups[key]

    def _follow(self) -> None:
        walks: dict[str, Walk] = {name: walker.walk() for name, walker in self.walkers.items()}
        waiting: dict[str, Request] = {}
        for name, walk in walks.items():
            self._advance(name, walk, None, waiting, first=True)
        moved = True
        while waiting and moved:
            moved = False
            for name in list(waiting):
                while name in waiting:
                    found = self._answer(self.walkers[name], waiting[name])
                    if found is None:
                        break
                    moved = True
                    del waiting[name]
                    self._advance(name, walks[name], found[0], waiting)
        self.stuck = tuple(waiting)
        self.findings.extend(f for walker in self.walkers.values() for f in walker.findings)

    def _advance(
        self,
        name: str,
        walk: Walk,
        result: Held | None,
        waiting: dict[str, Request],
        first: bool = False,
    ) -> None:
        """Follow a program to its next communication."""
        try:
            request = next(walk) if first else walk.send(result)
        except StopIteration:
            return
        key = (name, *_signal(request.operator))
        self.arrivals.setdefault(key, Arrival(request.operator, request.given))
        waiting[name] = request

    def _answer(self, walker: Walker, request: Request) -> tuple[Held | None] | None:
        """What a communication gives every device of a program; None if it cannot be told yet."""
        operator = request.operator
        if operator.target == "parframe.send":
            return (None,)
        axes = axes_of(operator)
        outcomes: list[Outcome] = []
        for rank in walker.ranks:
            members = self.group(rank, axes)
            me = members.index(rank)
            if operator.target == "parframe.recv":
                sources: Sequence[int] = (members[_number(operator, "peer")],)
                signal = ("send", ",".join(axes), str(operator.args["tag"]), str(me))
            elif operator.target == "parframe.broadcast":
                sources = (members[_number(operator, "root")],)
                signal = _signal(operator)
            else:
                sources, signal = members, _signal(operator)
            arrivals = [self.arrivals.get((self.program_of[r], *signal)) for r in sources]
            if any(arrival is None for arrival in arrivals):
                return None
            given: list[Concrete] = []
            for source, arrival in zip(sources, arrivals, strict=True):
                if arrival is None or arrival.given is None:
                    return (None,)
                given.append(concrete(arrival.given, self.bindings[source]))
            outcome = self._outcome(operator, tuple(given), me, rank, sources, arrivals)
            if outcome is None:
                self._blame(walker, operator, (rank,), "structure", "has malformed parts")
                return (None,)
            outcomes.append(outcome)
        self._blame_all(walker, operator, outcomes)
        if not operator.outputs:
            return (None,)
        return (self._symbolic(walker, request.given, [o.result for o in outcomes]),)

    def _outcome(
        self,
        operator: Operator,
        given: tuple[Concrete, ...],
        me: int,
        rank: int,
        sources: Sequence[int],
        arrivals: Sequence[Arrival | None],
    ) -> Outcome | None:
        """What one device gets."""
        symbols = tuple(self.symbols.items())
        match operator.target.removeprefix("parframe."):
            case "recv" | "broadcast":
                return Outcome(given[0])
            case "all_reduce":
                return reduce(given, str(operator.args.get("reduction")))
            case "all_gather":
                parts = self._regions(operator, "parts", rank, len(given))
                return gather(given, parts, symbols) if parts is not None else None
            case "reduce_scatter":
                parts = self._regions(operator, "parts", rank, len(given))
                if parts is None:
                    return None
                whole = reduce(given, str(operator.args.get("reduction")))
                found = scatter(whole.result, parts[me], symbols)
                return attrs.evolve(whole, result=found.result) if whole.fault else found
            case "all_to_all":
                parts = self._regions(operator, "parts", rank, len(given))
                sends: list[Parts] = []
                for source, arrival in zip(sources, arrivals, strict=True):
                    own = arrival.operator if arrival is not None else operator
                    sent = self._regions(own, "sends", source, len(given))
                    if sent is None:
                        return None
                    sends.append(sent[me])
                return exchange(given, tuple(sends), parts, symbols) if parts is not None else None
        return None

    def _regions(
        self, operator: Operator, slot: str, rank: int, count: int
    ) -> tuple[Parts, ...] | None:
        parts = operator.args.get(slot)
        if not isinstance(parts, tuple) or len(parts) != count:
            return None
        found: list[Parts] = []
        for part in parts:
            if not isinstance(part, tuple):
                return None
            regions: tuple[Region, ...] = part  # type: ignore[assignment]
            found.append(measure_regions(regions, self.bindings[rank]))
        return tuple(found)

    def _blame_all(
        self, walker: Walker, operator: Operator, outcomes: Sequence[Outcome]
    ) -> None:
        faults: dict[tuple[str, str], list[int]] = {}
        for rank, outcome in zip(walker.ranks, outcomes, strict=True):
            if outcome.fault:
                faults.setdefault((outcome.kind, outcome.fault), []).append(rank)
        for (kind, fault), ranks in faults.items():
            self._blame(walker, operator, tuple(ranks), kind, fault)

    def _blame(
        self, walker: Walker, operator: Operator, ranks: tuple[int, ...], kind: str, what: str
    ) -> None:
        self.findings.append(Finding(kind, ranks, operator.name, operator.module, what))

    # numbers back into the program's symbols ------------------------------------------------

    def _symbolic(
        self, walker: Walker, given: Held | None, results: Sequence[Concrete]
    ) -> Held | None:
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
        pending = tuple(
            Pending(
                term.term,
                term.label,
                term.reduction,
                frozenset(self._contributions(walker, results, number)),
            )
            for number, term in enumerate(first.pending)
        )
        return Held(place(first.axes, pieces), first.done, pending, first.label)

    def _contributions(
        self, walker: Walker, results: Sequence[Concrete], number: int
    ) -> list[tuple[Share, ...]]:
        """The contributions of one pending term, in the program's symbols."""
        keys = {
            tuple(key for key, _ in contribution)
            for result in results
            for contribution in result.pending[number].contributions
        }
        found = []
        for group in sorted(keys):
            shares = []
            for source, dim, size in group:
                measured: list[Measured | None] = []
                for result in results:
                    mine = [
                        dict(c)[source, dim, size]
                        for c in result.pending[number].contributions
                        if tuple(key for key, _ in c) == group
                    ]
                    measured.append(mine[0] if mine else None)
                total = self._size(walker, size)
                shares.append(Share(source, dim, total, self._range(walker, dim, total, measured)))
            found.append(tuple(shares))
        return found

    def _size(self, walker: Walker, size: Numbers) -> Size:
        """A size that is the same on all devices."""
        if len(set(size)) == 1:
            return size[0]
        for name, value in self.symbols.items():
            if value == size:
                return _model_symbol(name)
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
        names = set.intersection(
            *(set(self.plan.devices[rank].bindings) for rank in walker.ranks)
        )
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


def axes_of(operator: Operator) -> tuple[str, ...]:
    """The mesh axes of a communication operator's group."""
    axes = operator.args.get("axes")
    return tuple(str(axis) for axis in axes) if isinstance(axes, tuple) else (str(axes),)


def _number(operator: Operator, slot: str) -> int:
    value = operator.args.get(slot)
    return value if isinstance(value, int) else 0


def _signal(operator: Operator) -> Key:
    """What the members of a communication know it by."""
    kind = operator.target.removeprefix("parframe.")
    peer = (str(operator.args.get("peer")),) if kind in ("send", "recv") else ()
    return (
        kind if kind in ("send", "recv") else "collective",
        ",".join(axes_of(operator)),
        str(operator.args.get("tag")),
        *peer,
    )


def _model_symbol(name: str) -> Size:
    return symbol(name)


def program_ranks(plan: Plan) -> Mapping[str, tuple[int, ...]]:
    """The ranks that have each program."""
    found: dict[str, list[int]] = {}
    for device in plan.devices:
        found.setdefault(device.program, []).append(device.rank)
    return {name: tuple(ranks) for name, ranks in found.items()}

