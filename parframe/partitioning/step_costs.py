"""Costs of steps: work, weight bytes, bytes between stages, and what is cheap to recompute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from parframe.dims import BoundOperator, Dimensions
from parframe.graph import OperatorGraph
from parframe.partitioning.nominal_sizes import NOMINAL, nominal, nominal_bytes, nominal_elements
from parframe.partitioning.stage_balance import StepCost
from parframe.partitioning.step_sequence import ModelSteps, Step
from parframe.plan import COMMUNICATION_OPERATORS, communicates
from parframe.rules.signature import labels_of

_CHEAP = 32
"""Most operations per element for which a value is computed again rather than sent."""


def works_of(graph: OperatorGraph, dimensions: Dimensions) -> dict[str, float]:
    """Return the multiplications of every operator at nominal sizes, by its name.

    A product counts every combination of the labels of two inputs, without labels that only one
    input has and the result does not have: a table is looked up, not multiplied.
    """
    own = {
        block: {name: _work(bound) for name, bound in found.items()}
        for block, found in dimensions.bound.items()
    }
    return {
        f"{call.name}/{name}" if call.name else name: work
        for call in graph.calls
        for name, work in own[call.block].items()
    }


def _work(bound: BoundOperator) -> float:
    tensors = (*bound.site.inputs, *bound.site.outputs)
    moved = max((nominal_elements(tensor) for tensor in tensors[-1:]), default=0.0)
    signature = bound.signature
    if signature is None or signature.moves or len(signature.inputs) < 2:
        return moved
    out = labels_of(signature.outputs)
    inputs = [labels_of((axes,)) for axes in signature.inputs]
    alone = {x for x, count in Counter(x for one in inputs for x in one).items() if count == 1}
    pairs = (
        math.prod(nominal(signature.sizes[x]) for x in (left | right) - (alone - out))
        for left, right in combinations(inputs, 2)
    )
    return max(moved, *pairs)


def recomputable_steps(
    model: ModelSteps,
    makers: Mapping[str, int],
    given: set[str],
    weights: set[str],
    works: Mapping[str, float],
) -> dict[int, frozenset[int]]:
    """Return the steps that are cheaper to compute again than to send.

    These are steps of little work that depend on inputs and buffers only (positions, rotary
    tables). Each is given with all steps that it depends on, and itself.
    """
    found: dict[int, frozenset[int]] = {}
    for number, step in enumerate(model.steps):
        if any(communicates(operator) for operator in step.operators):
            continue
        if any(value in weights for value in step.reads):
            continue
        needed = {makers[value] for value in step.reads if value not in given}
        if not all(other in found for other in needed):
            continue
        closure = frozenset({number}).union(*(found[other] for other in needed))
        if len(closure) > 4 * _CHEAP:
            continue
        size = max(nominal_elements(model.tensors[value]) for value in step.writes)
        work = sum(_step_work(model.steps[other], works) for other in closure)
        if work <= _CHEAP * max(size, NOMINAL):
            found[number] = closure
    return found


def _step_work(step: Step, works: Mapping[str, float]) -> float:
    """Return the work of the model's operators that a step computes."""
    computing = (op for op in step.operators if op.target not in COMMUNICATION_OPERATORS)
    origins = {op.origin for op in computing}
    return sum(works.get(origin, 0.0) for origin in origins)


def step_costs(
    model: ModelSteps,
    makers: Mapping[str, int],
    recomputable: Mapping[int, frozenset[int]],
    given: set[str],
    works: Mapping[str, float],
) -> list[StepCost]:
    """Return the cost of every step, with the bytes that cross if a stage ends after it."""
    last: dict[str, int] = {}
    for number, step in enumerate(model.steps):
        for value in step.reads:
            last[value] = number
    crossing = [0.0] * (len(model.steps) + 1)
    for value, number in makers.items():
        if number in recomputable or last.get(value, number) <= number:
            continue
        size = nominal_bytes(model.tensors[value])
        crossing[number] += size
        crossing[last[value]] -= size
    running = 0.0
    costs = []
    seen: set[str] = set()
    for number, step in enumerate(model.steps):
        running += crossing[number]
        weights = {v for v in step.reads if v in given} - seen
        seen |= weights
        costs.append(
            StepCost(
                flops=0.0 if number in recomputable else _step_work(step, works),
                weight_bytes=sum(nominal_bytes(model.tensors[v]) for v in weights),
                crossing=running,
            )
        )
    return costs
