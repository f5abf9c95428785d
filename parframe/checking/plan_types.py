"""All programs retyped together: walks in, what every program's values are out.

A walk waits at a communication operator until the programs of the other members have come to
theirs.
"""

from __future__ import annotations

import attrs

from parframe.checking.checked_model import Whole
from parframe.checking.communication import Meetings
from parframe.checking.findings import Finding
from parframe.checking.operator_types import Step
from parframe.checking.program_types import Request, Walk, Walker
from parframe.checking.samples import graph_symbols, numbers, sample_symbols
from parframe.checking.symbolic_types import Rewriter
from parframe.checking.tensor_types import Held
from parframe.plan import Plan


class Followed:
    """The programs of a plan with all their values typed.

    ``walkers`` has what every program's values are, ``bindings`` every device's symbols in
    numbers, ``stuck`` the programs that could not be followed to their end.
    """

    def __init__(self, plan: Plan, whole: Whole) -> None:
        self.whole = whole
        self.symbols = sample_symbols(graph_symbols(plan.graph))
        self.bindings = [
            {
                **self.symbols,
                **{name: numbers(size, self.symbols) for name, size in device.bindings.items()},
            }
            for device in plan.devices
        ]
        ranks: dict[str, list[int]] = {}
        for device in plan.devices:
            ranks.setdefault(device.program, []).append(device.rank)
        steps: dict[object, Step] = {}
        self.walkers = {
            name: Walker(
                whole,
                plan.programs[name],
                tuple(found),
                steps,
                [self.bindings[rank] for rank in found],
            )
            for name, found in ranks.items()
        }
        rewriter = Rewriter(plan, self.symbols, self.bindings)
        self.meetings = Meetings(plan, self.symbols, self.bindings, rewriter)
        self.stuck = self._follow()

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with the programs' values."""
        own = [finding for walker in self.walkers.values() for finding in walker.findings]
        return [*own, *self.meetings.findings]

    def _follow(self) -> tuple[str, ...]:
        """Follow all programs; those that wait for ever."""
        walks: dict[str, Walk] = {name: walker.walk() for name, walker in self.walkers.items()}
        waiting: dict[str, Request] = {}

        def advance(name: str, result: Held | None, first: bool = False) -> None:
            waiting.pop(name, None)
            try:
                request = next(walks[name]) if first else walks[name].send(result)
            except StopIteration:
                return
            self.meetings.arrive(name, request)
            waiting[name] = request

        for name in walks:
            advance(name, None, first=True)
        moved = True
        while waiting and moved:
            moved = False
            for name in list(waiting):
                while name in waiting:
                    found = self.meetings.answer(self.walkers[name], waiting[name])
                    if found is None:
                        break
                    moved = True
                    advance(name, found[0])
        return tuple(waiting)


def each_on_its_own(plan: Plan) -> Plan:
    """The same plan, every device with a program of its own."""
    names = [f"{device.program}#{device.rank}" for device in plan.devices]
    return attrs.evolve(
        plan,
        programs={
            name: attrs.evolve(plan.programs[device.program], name=name)
            for name, device in zip(names, plan.devices, strict=True)
        },
        devices=tuple(
            attrs.evolve(device, program=name)
            for name, device in zip(names, plan.devices, strict=True)
        ),
    )
