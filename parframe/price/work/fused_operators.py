"""Operators that serving engines run as one kernel, and those with special treatment."""

from __future__ import annotations

from itertools import pairwise

import attrs

from parframe.price.work.dataflow import Flow
from parframe.price.work.operator_list import at


@attrs.frozen
class FusedGroup:
    """Pointwise operators that are fused into one kernel.

    Parameters
    ----------
    numbers
        Numbers of the operators.
    outputs
        Outputs of all operators of the group.
    traffic
        Values that the kernel reads from other operators or writes for them, each once.
    """

    numbers: tuple[int, ...]
    outputs: tuple[str, ...]
    traffic: tuple[str, ...]


class FusedOperators:
    """Operators as engines run them, without sizes.

    ``routers`` are the products that choose experts, which are not quantized. ``last_token`` are
    the operators that run for the last token of each sequence only. ``group_of`` has the first
    operator of the fused kernel of every pointwise operator, and ``groups`` the kernels by these.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.routers = self._routers()
        self.last_token = self._rows()
        self.group_of = fuse_pointwise(flow)
        numbers_of: dict[int, list[int]] = {}
        for number, group in sorted(self.group_of.items()):
            numbers_of.setdefault(group, []).append(number)
        self.wanted = {flow.source(value) for value in flow.ends}
        self.groups = {numbers[0]: self._group(numbers) for numbers in numbers_of.values()}

    def _group(self, numbers: list[int]) -> FusedGroup:
        flow, inside = self.flow, set(numbers)
        operators = [flow.operators[number] for number in numbers]
        made = dict.fromkeys(name for operator in operators for name in operator.outputs)
        sources = dict.fromkeys(flow.source(v) for operator in operators for v in operator.inputs)
        read = (name for name in sources if name not in made and flow.grows(name))
        written = (
            name
            for name in made
            if name in self.wanted or any(r not in inside for r in flow.readers.get(name, ()))
        )
        return FusedGroup(tuple(numbers), tuple(made), (*read, *written))

    def _rows(self) -> set[int]:
        """Return the operators of the output head, which give the model's result from one product.

        Serving engines run these for the last token of each sequence only.
        """
        outputs = [v for v in self.flow.outputs if v in self.flow.producer]
        seen, products, whole = self.flow.backward(outputs)
        return seen | products if whole and len(products) == 1 else set()

    def _routers(self) -> set[int]:
        """Return the products that choose experts. They are not quantized."""
        found: set[int] = set()
        for number, kind in enumerate(self.flow.kinds):
            if kind == "experts":
                operator = self.flow.operators[number]
                chosen = [at(operator, slot) for slot in ("ids", "weights")]
                found |= self.flow.backward(chosen)[1]
        return found


def fuse_pointwise(flow: Flow) -> dict[int, int]:
    """Return, for every pointwise operator, the first operator of its fused kernel."""
    level: dict[str, int] = {}
    height: list[int] = []
    parent: dict[int, int] = {}

    def find(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(one: int, other: int) -> None:
        low, high = sorted((find(one), find(other)))
        parent[high] = low

    for number, operator in enumerate(flow.operators):
        own = max((level.get(name, 0) for name in operator.inputs), default=0)
        kind = flow.kinds[number]
        height.append(own)
        made = {flow.producer.get(flow.source(name), -1) for name in operator.inputs}
        near = [n for n in made if n in parent and height[n] == own]
        if kind == "pointwise":
            parent[number] = number
            for other in near:
                join(number, other)
        elif kind not in ("view", "free"):
            for one, other in pairwise(near):
                join(one, other)  # what one kernel takes is made by one
        heavy = kind not in ("view", "free", "pointwise")
        level.update(dict.fromkeys(operator.outputs, own + heavy))
    return {number: find(number) for number in parent}
