"""Folding of a flat list of operators into blocks and calls, so that equal layers become one block.

A segment is a run of operators under one outermost indexed module (``model.layers.3``), or a run
outside of any. Segments that differ only in the names of their values are calls of one block.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs

from parframe.graph import (
    Arg,
    Block,
    Call,
    Input,
    Operator,
    OperatorGraph,
    Parameter,
    State,
    Tensor,
    map_outputs,
    output_leaves,
    rename_arg,
    verify_graph,
)
from parframe.rules.table import state_of

_INDEXED = re.compile(r"^((?:[^.]+\.)*?)(\d+)(?:\.|$)")


@attrs.frozen
class _Segment:
    """Run of operators: the name of its call, its indexed module (or ``""``) and its operators."""

    name: str
    scope: str
    operators: tuple[Operator, ...]


def fold(
    operators: Sequence[Operator],
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Parameter],
    outputs: Any,
    source: str = "",
    config: Mapping[str, Any] | None = None,
    remarks: tuple[str, ...] = (),
) -> OperatorGraph:
    """Fold operators, in order of execution, into a graph of blocks and calls.

    Parameters
    ----------
    operators
        Every operator, under names that are unique in the whole model, with full module paths.
    tensors
        The operators' outputs by name.
    inputs, parameters, outputs, source, config, remarks
        As in the graph.

    Returns
    -------
    OperatorGraph
        A valid graph. Values get new names, inputs and parameters keep theirs.

    Raises
    ------
    ParframeError
        If the operators use an undefined value.
    """
    known = {**inputs, **parameters, **tensors}
    segments = list(_segments(operators))
    needed = _needed(segments, set(output_leaves(outputs)))
    blocks: dict[str, Block] = {}
    by_form: dict[Any, str] = {}
    final: dict[str, str] = {}
    calls = []
    for segment, wanted in zip(segments, needed, strict=True):
        block, call = _block(segment, wanted, known, parameters)
        name = by_form.setdefault(_form(block), _fresh(block.name, blocks))
        blocks.setdefault(name, attrs.evolve(block, name=name))
        renamed = tuple(f"{segment.name}/{own}" for own in block.outputs)
        calls.append(
            attrs.evolve(
                call,
                block=name,
                inputs=tuple(final.get(value, value) for value in call.inputs),
                outputs=renamed,
            )
        )
        final.update(zip(call.outputs, renamed, strict=True))
    graph = OperatorGraph(
        blocks=blocks,
        calls=tuple(calls),
        inputs=dict(inputs),
        outputs=map_outputs(outputs, final),
        parameters=dict(parameters),
        source=source,
        config=dict(config or {}),
        remarks=remarks,
    )
    return verify_graph(graph)


def indexed_scope(module: str) -> str:
    """Return the outermost indexed part of a module path (``model.layers.3``), or ``""``."""
    found = _INDEXED.match(module)
    return found[1] + found[2] if found else ""


def _segments(operators: Iterable[Operator]) -> Iterator[_Segment]:
    runs = [
        (scope, tuple(run))
        for scope, run in groupby(operators, lambda op: indexed_scope(op.module))
    ]
    seen: Counter[str] = Counter()
    for position, (scope, run) in enumerate(runs):
        seen[scope] += 1
        if not scope:
            name = "head" if position == 0 else "tail" if position == len(runs) - 1 else "middle"
            count = seen[name] = seen[name] + 1
            yield _Segment(name if count == 1 else f"{name}{count}", "", run)
        elif seen[scope] == 1:
            yield _Segment(scope, scope, run)
        else:
            yield _Segment(f"{scope}@{seen[scope]}", "", run)


def _needed(segments: Sequence[_Segment], results: set[str]) -> list[set[str]]:
    """Return for each segment the values that later segments or the model's results use."""
    wanted = set(results)
    needed = []
    for segment in reversed(segments):
        needed.append(set(wanted))
        wanted.update(name for operator in segment.operators for name in operator.inputs)
    return needed[::-1]


def _block(
    segment: _Segment,
    wanted: set[str],
    known: Mapping[str, Tensor],
    parameters: Mapping[str, Parameter],
) -> tuple[Block, Call]:
    """Return a segment as a block of its own, and the call of it under the flat list's names."""
    made = [name for operator in segment.operators for name in operator.outputs]
    inside = set(made)
    used = dict.fromkeys(name for operator in segment.operators for name in operator.inputs)
    taken = [name for name in used if name not in inside]
    weights = [name for name in taken if name in parameters]
    values = [name for name in taken if name not in parameters]
    constants = {name for name in weights if parameters[name].data is not None}
    names = _own_names(segment, values, weights, constants)
    operators = tuple(_relative(operator, segment, names) for operator in segment.operators)
    outputs = [name for name in made if name in wanted]
    block = Block(
        name=segment.scope.rpartition(".")[0] or ("layers" if segment.scope else segment.name),
        inputs=tuple(names[name] for name in values),
        parameters=tuple(names[name] for name in weights),
        operators=operators,
        outputs=tuple(names[name] for name in outputs),
        tensors={
            names[name]: _plain(known[name], names[name]) for name in (*values, *weights, *made)
        },
        states=tuple(_states(operators)),
    )
    return block, Call(segment.name, block.name, tuple(values), tuple(weights), tuple(outputs))


def _own_names(
    segment: _Segment, values: list[str], weights: list[str], constants: set[str]
) -> dict[str, str]:
    """Return the block's own name of each of its values, the same for every equal segment."""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()

    def give(name: str, wish: str) -> None:
        own = wish
        while taken[own]:
            own = f"{wish}_{taken[wish]}"
            taken[wish] += 1
        taken[own] += 1
        names[name] = own

    prefix = f"{segment.scope}." if segment.scope else ""
    for name in weights:
        outside = "constant" if prefix and name in constants else name
        give(name, name[len(prefix) :] if prefix and name.startswith(prefix) else outside)
    for name in values:
        give(name, "input")
    for operator in segment.operators:
        for name in operator.outputs:
            give(name, short_name(operator.target))
    return names


def short_name(target: str) -> str:
    """Return an operator's name within its namespace: ``linear`` of ``aten.linear.default``."""
    return target.split(".")[1] if target.count(".") else target


def _relative(operator: Operator, segment: _Segment, names: Mapping[str, str]) -> Operator:
    module = operator.module
    if segment.scope:
        outer = segment.scope.rpartition(".")[0]
        rest = module[len(segment.scope) :]
        module = f"{outer}.*{rest}" if outer else f"*{rest}"
    return Operator(
        name=names[operator.outputs[0]],
        target=operator.target,
        args={slot: rename_arg(arg, names) for slot, arg in operator.args.items()},
        outputs=tuple(names[name] for name in operator.outputs),
        module=module,
        source=operator.source,
    )


def _states(operators: Iterable[Operator]) -> Iterator[State]:
    for operator in operators:
        for slot in state_of(operator):
            value = operator.inputs[operator.slots.index(slot)]
            yield State(f"{operator.name}.{slot}", value)


def _plain(tensor: Tensor, name: str) -> Tensor:
    return Tensor(name, tensor.shape, tensor.dtype)


def _fresh(name: str, blocks: Mapping[str, Block]) -> str:
    """Return the name itself, or with the first number that makes it new."""
    if name not in blocks:
        return name
    return next(f"{name}:{n}" for n in range(2, len(blocks) + 3) if f"{name}:{n}" not in blocks)


def _form(block: Block) -> Any:
    """Return a key that is equal exactly for equal blocks."""
    return (
        block.inputs,
        block.parameters,
        block.outputs,
        tuple(
            (op.target, tuple((k, _typed(v)) for k, v in op.args.items()), op.outputs, op.module)
            for op in block.operators
        ),
        tuple((name, tensor.shape, tensor.dtype) for name, tensor in block.tensors.items()),
    )


def _typed(arg: Arg) -> Any:
    """Return an argument as a key, in which 1, 1.0 and True differ."""
    if isinstance(arg, tuple):
        return tuple(_typed(part) for part in arg)
    return (type(arg).__name__, arg)
