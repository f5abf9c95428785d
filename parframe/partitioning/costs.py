"""What the steps of a sequence cost: where a stage may end, and what is better computed again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from parframe.graph import Operator, Tensor
from parframe.partitioning.nominal import NOMINAL, nominal_bytes, nominal_elements
from parframe.partitioning.sequence import Sequence
from parframe.partitioning.stages import Cost
from parframe.plan import COMMUNICATION

_CHEAP = 32
"""A value is computed again rather than sent if that takes at most so many elements for one."""


def cheap_steps(
    model: Sequence, maker: Mapping[str, int], given: set[str], weights: set[str]
) -> dict[int, frozenset[int]]:
    """Steps that are cheaper to do again than to send, each with all that it takes.

    These are steps of little work on inputs and buffers alone (positions, rotary tables).
    """
    found: dict[int, frozenset[int]] = {}
    for number, step in enumerate(model.steps):
        if any(operator.target in COMMUNICATION for operator in step.operators):
            continue
        if any(value in weights for value in step.reads):
            continue
        if any(value in weights for value in step.reads):
            continue
        needed = {maker[value] for value in step.reads if value not in given}
        if not all(other in found for other in needed):
            continue
        closure = frozenset({number}).union(*(found[other] for other in needed))
        if len(closure) > 4 * _CHEAP:
            continue
        size = max(nominal_elements(model.tensors[value]) for value in step.writes)
        work = sum(
            _work(operator, model.tensors)
            for other in closure
            for operator in model.steps[other].operators
        )
        if work <= _CHEAP * max(size, NOMINAL):
            found[number] = closure
    return found


def _work(operator: Operator, tensors: Mapping[str, Tensor]) -> float:
    """Multiplications of an operator at nominal sizes.

    That is the largest tensor's elements, times what a product contracts.
    """
    sizes = [nominal_elements(tensors[v]) for v in (*operator.inputs, *operator.outputs)]
    largest = max(sizes, default=0.0)
    if len(operator.inputs) > 1:
        out = max((nominal_elements(tensors[v]) for v in operator.outputs), default=0.0)
        ins = sorted((nominal_elements(tensors[v]) for v in operator.inputs), reverse=True)[:2]
        if out and ins[0] * ins[1] > out * largest:
            return max(largest, math.sqrt(ins[0] * ins[1] * out))
    return largest


def step_costs(
    model: Sequence,
    maker: Mapping[str, int],
    closures: Mapping[int, frozenset[int]],
    given: set[str],
    outputs: tuple[str, ...],
) -> list[Cost]:
    """What every step costs, and what would cross if a stage ended after it."""
    last: dict[str, int] = {}
    for number, step in enumerate(model.steps):
        for value in step.reads:
            last[value] = number
    crossing = [0.0] * (len(model.steps) + 1)
    for value, number in maker.items():
        if number in closures or last.get(value, number) <= number:
            continue
        size = nominal_bytes(model.tensors[value])
        crossing[number] += size
        crossing[last[value]] -= size
    running = 0.0
    costs = []
    held: set[str] = set()
    for number, step in enumerate(model.steps):
        running += crossing[number]
        weights = {v for v in step.reads if v in given} - held
        held |= weights
        costs.append(
            Cost(
                flops=sum(_work(operator, model.tensors) for operator in step.operators)
                if number not in closures
                else 0.0,
                weight_bytes=sum(nominal_bytes(model.tensors[v]) for v in weights),
                crossing=running,
            )
        )
    return costs
