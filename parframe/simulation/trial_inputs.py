"""Sizes and random inputs of trials: uneven where the plan splits, valid as indices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, OperatorGraph, Ref
from parframe.plan import Plan
from parframe.rules.kinds import View
from parframe.rules.pointwise import is_addition
from parframe.rules.table import rule_of
from parframe.simulation.graph_inputs import default_input
from parframe.sizes import evaluate

_LARGEST_INTEGER = 8
_SHORTEST = {"batch": 2, "sequence": 5}
_MOST_SHARES = 4
"""Largest number of shares per device that a trial is sized for, where devices are unequal."""


def choose_trial_sizes(
    plan: Plan, batch: int | None, sequence: int | None
) -> tuple[dict[str, int], ...]:
    """Choose values for the symbols of a plan's inputs, a set for each trial.

    A split symbol gets a size that its mesh axes do not divide, so that devices hold parts of
    different sizes; where the batch is split and not given, a second trial has fewer rows than
    there are parts.
    """
    given = {"batch": batch, "sequence": sequence}
    names = dict(_named_symbols(plan.graph))
    for name, number in given.items():
        if number is None:
            continue
        if number < 1:
            raise ParframeError("input", name, f"is {number}", "use 1 or more")
        if name not in names.values():
            raise ParframeError(
                "input", name, "is not a size of the model's inputs", "leave it out"
            )
    parts = {name: _count_parts(plan, name) for name in names.values()}
    first = {
        symbol: given.get(name) or max(parts[name] + 1, _SHORTEST.get(name, 3))
        for symbol, name in names.items()
    }
    few = {s: parts[n] - 1 if n == "batch" else first[s] for s, n in names.items()}
    if batch is None and parts.get("batch", 1) > 1:
        return first, few
    return (first,)


def make_trial_inputs(
    graph: OperatorGraph, sizes: Mapping[str, int], seed: int
) -> dict[str, torch.Tensor]:
    """Draw random inputs: normal floats, and integers that are valid wherever they are indices."""
    limits = find_index_limits(graph, sizes)
    return {
        name: _draw_input(given, sizes, limits.get(name, _LARGEST_INTEGER), seed)
        for name, given in graph.inputs.items()
    }


def _named_symbols(graph: OperatorGraph) -> Iterator[tuple[str, str]]:
    """Yield the symbols of the inputs, each with the named dimension that it is the size of."""
    for given in graph.inputs.values():
        axes = given.axes or ("",) * len(given.shape)
        for size, axis in zip(given.shape, axes, strict=True):
            if isinstance(size, sympy.Symbol):
                yield size.name, axis or size.name


def _count_parts(plan: Plan, name: str) -> int:
    ratios = [mesh.ratio(plan.placing.axes(name)) for mesh in plan.mesh.submeshes]
    halves = 2 if name in plan.placing.zigzag else 1
    return halves * max(min(sum(ratio), _MOST_SHARES * len(ratio)) for ratio in ratios)


def _draw_input(given: Input, sizes: Mapping[str, int], limit: int, seed: int) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}:{given.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    shape = [evaluate(size, sizes) for size in given.shape]
    kind: torch.dtype = getattr(torch, given.dtype)
    if given.counted:
        return default_input(given, shape)
    if kind == torch.bool:
        return torch.rand(shape, generator=generator) < 0.75
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)
    return torch.randint(max(1, limit), shape, generator=generator).to(kind)


def find_index_limits(graph: OperatorGraph, sizes: Mapping[str, int]) -> dict[str, int]:
    """Find the exclusive upper limit of each integer input that indexes rows of a table."""
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    sources = {name: (name, 0) for name in graph.inputs}
    limits: dict[str, int] = {}
    for call, operator in graph.expand():
        block = graph.blocks[call.block]
        names = call.names(block)
        shapes.update((names[inner], tensor.shape) for inner, tensor in block.tensors.items())
        for index, size in _find_lookups(operator, shapes):
            if index in sources:
                name, shift = sources[index]
                limit = evaluate(size, sizes) - shift
                limits[name] = min(limits.get(name, limit), limit)
        added = _added_constant(operator)
        if added is not None and operator.inputs[0] in sources:
            name, shift = sources[operator.inputs[0]]
            sources[operator.outputs[0]] = (name, shift + added)
    return limits


def _added_constant(operator: Operator) -> int | None:
    """Return the constant that an operator adds to its input; None if it computes anything else."""
    rule = rule_of(operator)
    if rule is None or not operator.inputs:
        return None
    if isinstance(rule.kind, View) or (rule.identity is not None and rule.identity(operator)):
        return 0
    other = operator.args.get("other")
    integer = isinstance(other, int) and not isinstance(other, bool)
    return other if isinstance(other, int) and integer and is_addition(operator) else None


def _find_lookups(
    operator: Operator, shapes: Mapping[str, tuple[int | sympy.Expr, ...]]
) -> Iterator[tuple[str, int | sympy.Expr]]:
    """Yield the index tensors of a lookup operator, each with the size of the dim it indexes."""
    rule = rule_of(operator)
    if rule is None or rule.indices is None:
        return
    rows, slot = rule.indices
    table, index = operator.args[rows], operator.args[slot]
    if not isinstance(table, Ref):
        return
    dim: Arg = operator.args.get("dim", 0)
    indices = index if isinstance(index, tuple) else (index,)
    for place, indexed in enumerate(indices, start=dim if isinstance(dim, int) else 0):
        if isinstance(indexed, Ref):
            yield indexed.name, shapes[table.name][place]
