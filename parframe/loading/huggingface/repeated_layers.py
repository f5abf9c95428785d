"""Repeat the layers of a graph that was exported with only the first few of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from parframe.graph import Call, OperatorGraph, Parameter, map_leaves, verify_graph
from parframe.loading.huggingface.layer_stacks import Stack

Source = tuple[str, Any]
"""Where a call's input comes from: an output of the layer before it, or a value of this name."""


class UnequalLayersError(Exception):
    """Layers that are built alike turned out to work differently."""


def repeat(
    graph: OperatorGraph, stack: Stack, parameter: Callable[[str, Parameter], Parameter]
) -> OperatorGraph:
    """The graph with a stack of layers at its real length.

    Parameters
    ----------
    graph
        Exported with the first layers of the stack.
    stack
        The layers.
    parameter
        A layer's parameter by its name, given that of an equal layer.

    Raises
    ------
    UnequalLayersError
        If layers of one kind are not calls of one block that are fed alike.
    """
    kept = _kept_calls(graph, stack)
    first = graph.calls.index(kept[0])
    templates = _templates(graph, stack, kept)
    calls = list(kept)
    parameters = dict(graph.parameters)
    for index in range(stack.kept, len(stack.kinds)):
        template, sources = templates[stack.kinds[index]]
        call = _again(template, sources, calls[-1], f"{stack.path}.{index}")
        for old, new in zip(template.parameters, call.parameters, strict=True):
            if new not in parameters:
                parameters[new] = parameter(new, graph.parameters[old])
        calls.append(call)
    names = _last_outputs(graph, kept, calls[-1])
    rest = graph.calls[first + len(kept) :]
    after = [
        attrs.evolve(call, inputs=tuple(names.get(name, name) for name in call.inputs))
        for call in rest
    ]
    return verify_graph(
        attrs.evolve(
            graph,
            calls=(*graph.calls[:first], *calls, *after),
            outputs=map_leaves(graph.outputs, names),
            parameters=parameters,
        )
    )


def _kept_calls(graph: OperatorGraph, stack: Stack) -> list[Call]:
    """The calls of the layers that were exported, which must follow one another."""
    wanted = [f"{stack.path}.{index}" for index in range(stack.kept)]
    names = [call.name for call in graph.calls]
    if wanted[0] not in names:
        raise UnequalLayersError(f"{wanted[0]} has no operators")
    first = names.index(wanted[0])
    if names[first : first + len(wanted)] != wanted:
        raise UnequalLayersError(f"the layers of {stack.path} do not follow one another")
    if sum(name.startswith(f"{stack.path}.") for name in names) > len(wanted):
        raise UnequalLayersError(f"the layers of {stack.path} are run more than once")
    return list(graph.calls[first : first + len(wanted)])


def _templates(
    graph: OperatorGraph, stack: Stack, kept: Sequence[Call]
) -> dict[int, tuple[Call, tuple[Source, ...]]]:
    """For each kind of layer, a call to repeat and where its inputs come from."""
    found: dict[int, tuple[Call, tuple[Source, ...]]] = {}
    blocks: dict[int, str] = {}
    for index, call in enumerate(kept):
        kind = stack.kinds[index]
        if blocks.setdefault(kind, call.block) != call.block:
            raise UnequalLayersError(f"{call.name} is unlike the layers that are built as it is")
        if index == 0:
            continue
        sources = tuple(_source(name, kept[:index]) for name in call.inputs)
        if kind in found and found[kind][1] != sources:
            raise UnequalLayersError(f"{call.name} is fed unlike the layers built as it is")
        found[kind] = (call, sources)
    missing = set(stack.kinds[stack.kept :]) - set(found)
    widths = {len(graph.blocks[block].outputs) for block in blocks.values()}
    if missing or len(widths) != 1:
        raise UnequalLayersError(f"the layers of {stack.path} do not feed one another alike")
    return found


def _source(name: str, before: Sequence[Call]) -> Source:
    if name in before[-1].outputs:
        return ("before", before[-1].outputs.index(name))
    for call in before[:-1]:
        if name in call.outputs:
            raise UnequalLayersError(f"{name} is used by a layer that does not follow {call.name}")
    return ("fixed", name)


def _again(template: Call, sources: Sequence[Source], before: Call, name: str) -> Call:
    """The template's block called once more, under another layer's name."""
    prefix = f"{template.name}."
    outputs = tuple(f"{name}/{own.rpartition('/')[2]}" for own in template.outputs)
    return attrs.evolve(
        template,
        name=name,
        inputs=tuple(
            before.outputs[which] if kind == "before" else which for kind, which in sources
        ),
        parameters=tuple(
            f"{name}.{own[len(prefix) :]}" if own.startswith(prefix) else own
            for own in template.parameters
        ),
        outputs=outputs,
    )


def _last_outputs(graph: OperatorGraph, kept: Sequence[Call], last: Call) -> Mapping[str, str]:
    """The outputs of the last layer exported, and what those of the real last layer are called.

    Raises
    ------
    UnequalLayersError
        If something after the layers uses what another one gave.
    """
    inner = {name for call in kept[:-1] for name in call.outputs}
    layers = {call.name for call in kept}
    outside = [call for call in graph.calls if call.name not in layers]
    used = {name for call in outside for name in call.inputs} | set(graph.output_names)
    if inner & used:
        raise UnequalLayersError("a value from within the layers is used after them")
    return dict(zip(kept[-1].outputs, last.outputs, strict=True))
