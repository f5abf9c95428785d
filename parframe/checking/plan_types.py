"""Types of all values in all programs of a plan.

The inference of a program stops at a communication operator until the programs of the group's
other ranks have reached it.
"""

from __future__ import annotations

import attrs

from parframe.checking.checked_model import CheckedModel
from parframe.checking.communication import CommunicationTyping
from parframe.checking.findings import Finding
from parframe.checking.operator_types import OperatorType
from parframe.checking.program_types import CommunicationRequest, Inference, ProgramTypes
from parframe.checking.samples import graph_symbols, sample_size, sample_symbols
from parframe.checking.symbolic_types import Symbolizer
from parframe.checking.tensor_types import TensorType
from parframe.plan import Plan


class PlanTypes:
    """Types of all values in all programs of a plan.

    - ``programs``: the types of every program's values.
    - ``bindings``: every rank's symbols in numbers.
    - ``blocked``: the programs that wait for a communication that other ranks never enter.
    """

    def __init__(self, plan: Plan, model: CheckedModel) -> None:
        self.model = model
        self.symbols = sample_symbols(graph_symbols(plan.graph))
        self.bindings = [
            {
                **self.symbols,
                **{name: sample_size(size, self.symbols) for name, size in device.bindings.items()},
            }
            for device in plan.devices
        ]
        ranks: dict[str, list[int]] = {}
        for device in plan.devices:
            ranks.setdefault(device.program, []).append(device.rank)
        operator_types: dict[object, OperatorType] = {}
        self.programs = {
            name: ProgramTypes(
                model,
                plan.programs[name],
                tuple(program_ranks),
                operator_types,
                [self.bindings[rank] for rank in program_ranks],
            )
            for name, program_ranks in ranks.items()
        }
        symbolizer = Symbolizer(plan, self.symbols, self.bindings)
        self.communication = CommunicationTyping(plan, self.symbols, self.bindings, symbolizer)
        self.blocked = self._infer_all()

    @property
    def findings(self) -> list[Finding]:
        """Faults of the programs' values."""
        own = [
            finding
            for program_types in self.programs.values()
            for finding in program_types.findings
        ]
        return [*own, *self.communication.findings]

    def _infer_all(self) -> tuple[str, ...]:
        """Infer the types of all programs; return the programs that remain blocked."""
        inferences: dict[str, Inference] = {
            name: program_types.infer() for name, program_types in self.programs.items()
        }
        waiting: dict[str, CommunicationRequest] = {}

        def advance(name: str, result: TensorType | None, first: bool = False) -> None:
            waiting.pop(name, None)
            try:
                request = next(inferences[name]) if first else inferences[name].send(result)
            except StopIteration:
                return
            self.communication.add_request(name, request)
            waiting[name] = request

        for name in inferences:
            advance(name, None, first=True)
        advanced = True
        while waiting and advanced:
            advanced = False
            for name in list(waiting):
                while name in waiting:
                    answer = self.communication.result(self.programs[name], waiting[name])
                    if answer is None:
                        break
                    advanced = True
                    advance(name, answer[0])
        return tuple(waiting)


def with_program_per_rank(plan: Plan) -> Plan:
    """Return the plan with a program of its own for every rank."""
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
