"""Which operators of a device serving engines run as one kernel, and which they treat apart."""

from __future__ import annotations

import attrs

from parframe.price.work.dataflow import Flow
from parframe.price.work.operator_list import at
from parframe.price.work.pointwise_fusion import fuse_pointwise


@attrs.frozen
class FusedGroup:
    """Pointwise operators that are one kernel.

    Parameters
    ----------
    numbers
        The operators.
    made
        What they give, each other included.
    moved
        What the kernel reads of others, once each, and what it writes for them.
    """

    numbers: tuple[int, ...]
    made: tuple[str, ...]
    moved: tuple[str, ...]


class FusedOperators:
    """Operators as engines run them, whatever the sizes.

    ``routers`` are the products that choose experts; they are not quantised. ``rows`` are done for
    the last position of each row alone. ``group_of`` has for every pointwise operator the first of
    those that it is one kernel with; ``groups`` are these kernels by their first operators.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.routers = self._routers()
        self.rows = self._rows()
        self.group_of = fuse_pointwise(flow)
        members: dict[int, list[int]] = {}
        for number, group in sorted(self.group_of.items()):
            members.setdefault(group, []).append(number)
        self.wanted = {flow.source(value) for value in flow.ends}
        self.groups = {numbers[0]: self._group(numbers) for numbers in members.values()}

    def _group(self, numbers: list[int]) -> FusedGroup:
        flow, inside = self.flow, set(numbers)
        operators = [flow.operators[number] for number in numbers]
        made = dict.fromkeys(name for operator in operators for name in operator.outputs)
        sources = dict.fromkeys(flow.source(v) for operator in operators for v in operator.inputs)
        read = (name for name in sources if name not in made and flow.bears(name))
        written = (
            name
            for name in made
            if name in self.wanted or any(r not in inside for r in flow.readers.get(name, ()))
        )
        return FusedGroup(tuple(numbers), tuple(made), (*read, *written))

    def _rows(self) -> set[int]:
        """Operators that give the model's result from one product: the head.

        Serving engines do these for the last position of each row alone.
        """
        outputs = [v for v in self.flow.outputs if v in self.flow.maker]
        seen, products, whole = self.flow.backward(outputs)
        return seen | products if whole and len(products) == 1 else set()

    def _routers(self) -> set[int]:
        """Products that choose experts; they are not quantised."""
        found: set[int] = set()
        for number, kind in enumerate(self.flow.kinds):
            if kind == "experts":
                operator = self.flow.operators[number]
                chosen = [at(operator, slot) for slot in ("ids", "weights")]
                found |= self.flow.backward(chosen)[1]
        return found
