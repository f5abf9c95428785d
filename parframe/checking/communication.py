"""Communications typed: what the programs of all members put in, what each device gets out."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import attrs

from parframe.checking.collective_types import exchange, gather, scatter, unite
from parframe.checking.concrete_types import Concrete, Measurer, Parts, concrete
from parframe.checking.findings import Finding
from parframe.checking.program_types import Request, Walker
from parframe.checking.reductions import Outcome, reduce
from parframe.checking.samples import Numbers
from parframe.checking.symbolic_types import Rewriter
from parframe.checking.tensor_types import Held
from parframe.graph import Operator
from parframe.layout import Region
from parframe.plan import Plan, group_axes
from parframe.rules.table import EXCHANGES

Key = tuple[str, ...]
"""A program's name, and what its communication is known by to the other side."""


def signal(operator: Operator) -> Key:
    """What the members of a communication know it by."""
    kind = operator.target.removeprefix("parframe.")
    peer = (str(operator.args.get("peer")),) if kind in ("send", "recv") else ()
    return (
        kind if kind in ("send", "recv") else "collective",
        ",".join(group_axes(operator)),
        str(operator.args.get("tag")),
        *peer,
    )


def _part(request: Request) -> Key:
    """Which of the inputs of an exchange is asked for."""
    return () if request.number is None else (str(request.number),)


@attrs.frozen(eq=False)
class Meetings:
    """Where programs meet: what each has put into the communications that it has come to.

    Parameters
    ----------
    plan
        The plan.
    symbols
        The model's symbols in numbers.
    bindings
        Every rank's symbols in numbers.
    rewriter
        Writes what devices get in their program's symbols.
    """

    plan: Plan
    symbols: Mapping[str, Numbers]
    bindings: Sequence[MutableMapping[str, Numbers]]
    rewriter: Rewriter
    arrivals: dict[Key, Request] = attrs.field(factory=dict)
    findings: list[Finding] = attrs.field(factory=list)
    _groups: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = attrs.field(factory=dict)
    _measure: Measurer = attrs.field(factory=Measurer)
    _gathered: dict[tuple[int, int], tuple[Any, Any, Outcome]] = attrs.field(factory=dict)

    def arrive(self, program: str, request: Request) -> None:
        """Note that a program has come to a communication."""
        self.arrivals.setdefault((program, *signal(request.operator), *_part(request)), request)

    def answer(self, walker: Walker, request: Request) -> tuple[Held | None] | None:
        """What a communication gives every device of a program; None if it cannot be told yet."""
        operator = request.operator
        if operator.target == "parframe.send":
            return (None,)
        outcomes: list[Outcome] = []
        known: dict[tuple[int, ...], tuple[Concrete, ...] | None] = {}
        for rank in walker.ranks:
            members = self._group(rank, group_axes(operator))
            sources, key = self._sources(operator, members, members.index(rank))
            key = (*key, *_part(request))
            if sources not in known:
                if any((self._program(r), *key) not in self.arrivals for r in sources):
                    return None
                known[sources] = self._given(sources, key)
            given = known[sources]
            if given is None:
                return (None,)
            outcome = self._outcome(request, given, members, rank)
            if outcome is None:
                self._blame(operator, (rank,), "structure", "has malformed parts")
                return (None,)
            outcomes.append(outcome)
        self._blame_all(walker, operator, outcomes)
        if not operator.outputs:
            return (None,)
        held = self.rewriter.held(walker, [outcome.result for outcome in outcomes])
        if held is None:
            labels = ", ".join(sorted({outcome.result.label for outcome in outcomes}))
            message = f"brings different values to devices that do the same with them: {labels}"
            self._blame(operator, walker.ranks, "type", message)
        return (held,)

    def _program(self, rank: int) -> str:
        return self.plan.devices[rank].program

    def _group(self, rank: int, axes: tuple[str, ...]) -> tuple[int, ...]:
        if (rank, axes) not in self._groups:
            members = self.plan.mesh.group(rank, axes)
            self._groups.update(((member, axes), members) for member in members)
        return self._groups[rank, axes]

    def _sources(
        self, operator: Operator, members: tuple[int, ...], me: int
    ) -> tuple[tuple[int, ...], Key]:
        """The ranks whose values come together in a device, and what they know it by."""
        if operator.target == "parframe.recv":
            _, axes, tag, peer = signal(operator)
            return (members[int(peer)],), ("send", axes, tag, str(me))
        if operator.target == "parframe.broadcast":
            root = operator.args["root"]
            return (members[root if isinstance(root, int) else 0],), signal(operator)
        return members, signal(operator)

    def _given(self, sources: tuple[int, ...], key: Key) -> tuple[Concrete, ...] | None:
        """What the sources put in, in numbers; None if it is unknown of any."""
        found: list[Concrete] = []
        for source in sources:
            held = self.arrivals[(self._program(source), *key)].given
            if held is None:
                return None
            found.append(concrete(held, self.bindings[source]))
        return tuple(found)

    def _outcome(
        self,
        request: Request,
        given: tuple[Concrete, ...],
        members: tuple[int, ...],
        rank: int,
    ) -> Outcome | None:
        """What one device gets; None if the operator is malformed."""
        symbols = tuple(self.symbols.items())
        me = members.index(rank)
        operator = request.operator
        kind = operator.target.removeprefix("parframe.")
        if operator.target in EXCHANGES:
            return unite(given, request.dims, symbols)
        if kind in ("recv", "broadcast"):
            return Outcome(given[0])
        reduction = str(operator.args.get("reduction"))
        if kind == "all_reduce":
            return reduce(given, reduction)
        parts = self._regions(operator, "parts", rank, len(given))
        if parts is None:
            return None
        if kind == "all_gather":
            seen = (id(given), id(parts))
            if seen not in self._gathered:
                self._gathered[seen] = (given, parts, gather(given, parts, symbols))
            return self._gathered[seen][-1]
        if kind == "reduce_scatter":
            whole = reduce(given, reduction)
            found = scatter(whole.result, parts[me], symbols)
            return attrs.evolve(whole, result=found.result) if whole.fault else found
        sends: list[Parts] = []
        for member in members:
            own = self.arrivals[(self._program(member), *signal(operator))].operator
            sent = self._regions(own, "sends", member, len(given))
            if sent is None:
                return None
            sends.append(sent[me])
        return exchange(given, tuple(sends), parts, symbols)

    def _regions(
        self, operator: Operator, slot: str, rank: int, count: int
    ) -> tuple[Parts, ...] | None:
        """The regions in an argument, in numbers."""
        parts = operator.args.get(slot)
        if not isinstance(parts, tuple) or len(parts) != count:
            return None
        regions: tuple[tuple[Region, ...], ...] = parts
        return self._measure(regions, self.bindings[rank])

    def _blame_all(self, walker: Walker, operator: Operator, outcomes: Sequence[Outcome]) -> None:
        faults: dict[tuple[str, str], list[int]] = {}
        for rank, outcome in zip(walker.ranks, outcomes, strict=True):
            if outcome.fault:
                faults.setdefault((outcome.kind, outcome.fault), []).append(rank)
        for (kind, fault), ranks in faults.items():
            self._blame(operator, tuple(ranks), kind, fault)

    def _blame(self, operator: Operator, ranks: tuple[int, ...], kind: str, what: str) -> None:
        self.findings.append(Finding(kind, ranks, operator.name, operator.module, what))
