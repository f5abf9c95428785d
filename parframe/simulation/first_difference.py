"""Search for the first operator whose result differs from the unpartitioned model's."""

from __future__ import annotations

import torch

from parframe.graph import Operator
from parframe.plan import COMMUNICATION_OPERATORS, Plan, Program
from parframe.simulation.device_coroutine import evaluate_sizes
from parframe.simulation.graph_inputs import find_sizes
from parframe.simulation.numerical_error import find_scale, relative_error
from parframe.simulation.proof import Difference
from parframe.simulation.reference import run_reference
from parframe.simulation.regions import evaluate_regions, take
from parframe.simulation.simulate import RunInputs, run_devices


def find_first_difference(plan: Plan, given: RunInputs, bound: float) -> Difference | None:
    """Run a plan and find the first operator whose result differs from the model's.

    A value is compared if its expected value is known: from the program's layouts, or because it
    has the name and the shape of a value of the model and cannot be a partial sum. ``bound`` is
    relative to the largest number of the whole value; None is returned if no error exceeds it.
    """
    comparer = _ValueComparer(plan, given, bound)
    run_devices(plan, given, observe_value=comparer.compare)
    return comparer.first_difference()


class _ValueComparer:
    """Comparison of the devices' values with those of the unpartitioned model."""

    def __init__(self, plan: Plan, given: RunInputs, bound: float) -> None:
        self.plan = plan
        self.bound = bound
        self.expected: dict[str, torch.Tensor] = {**given.inputs, **given.state}
        self.scales: dict[str, float] = {}
        run_reference(
            plan.graph, given.inputs, given.state, given.dtype, observe=self._add_expected
        )
        self.order = {name: i for i, name in enumerate(self.expected)}
        symbols = find_sizes(plan.graph, given.inputs)
        self.sizes = [evaluate_sizes(device, symbols) for device in plan.devices]
        self.partial = {name: _find_partial_values(p) for name, p in plan.programs.items()}
        self.errors: dict[tuple[str, str], tuple[Operator, dict[int, float]]] = {}

    def compare(self, rank: int, operator: Operator, name: str, value: torch.Tensor) -> None:
        """Compare a value of a device, and note the error if it exceeds the bound."""
        expected = self._expected_part(rank, name, value)
        if expected is None:
            return
        whole, part = expected
        if whole not in self.scales:
            self.scales[whole] = find_scale(self.expected[whole])
        error = relative_error(value, part, self.scales[whole])
        if error > self.bound:
            ranks = self.errors.setdefault((whole, operator.name), (operator, {}))[1]
            ranks[rank] = error

    def first_difference(self) -> Difference | None:
        """Return the differing operator that comes first in the model's order.

        Of several operators that compute the same value, it is the first that was run.
        """
        if not self.errors:
            return None
        operator, ranks = self.errors[min(self.errors, key=lambda key: self.order[key[0]])]
        return Difference(
            operator=operator.name,
            module=operator.module,
            source=operator.source,
            ranks=tuple(sorted(ranks)),
            error=max(ranks.values()),
        )

    def _add_expected(self, operator: Operator, name: str, value: torch.Tensor) -> None:
        self.expected[name] = value

    def _expected_part(
        self, rank: int, name: str, value: torch.Tensor
    ) -> tuple[str, torch.Tensor] | None:
        """Return the name of the model's value, and the part of it that a device should have."""
        program = self.plan.program(rank)
        layout = program.layouts.get(name)
        if layout is not None:
            if layout.partial or layout.whole not in self.expected:
                return None
            regions = evaluate_regions(layout.region, self.sizes[rank])
            return layout.whole, take(self.expected[layout.whole], regions)
        if program.layouts or name in self.partial[program.name]:
            return None
        name = name.partition("@")[0]
        whole = self.expected.get(name)
        if whole is None or whole.shape != value.shape:
            return None
        return name, whole


def _find_partial_values(program: Program) -> frozenset[str]:
    """Find the values that may be partial: those that a reduction over devices depends on."""
    partial: set[str] = set()
    for operator in reversed(program.operators):
        reduces = "reduction" in operator.args
        passes = operator.target not in COMMUNICATION_OPERATORS
        if reduces or (passes and partial & {*operator.outputs}):
            partial.update(operator.inputs)
    return frozenset(partial)
