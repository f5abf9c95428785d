"""Repetition of the layers of a graph that was exported with only the first few of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from parframe.graph import Call, OperatorGraph, Parameter, map_outputs, verify_graph
from parframe.loading.huggingface.layer_stacks import Stack

Source = tuple[str, Any]
"""Source of a call's input: an output of the previous layer by number, or a value by name."""


class UnequalLayersError(Exception):
    """Layers of equal structure whose exported operators or inputs differ."""


def repeat_layers(
    graph: OperatorGraph, stack: Stack, parameter: Callable[[str, Parameter], Parameter]
) -> OperatorGraph:
    """Repeat a stack, exported with its first layers, to its full length.

    `parameter` returns a layer's parameter by its name, given that of an equal layer.

    Raises
    ------
    UnequalLayersError
        If layers of one kind are not calls of the same block with inputs from the same sources.
    """
    exported = _exported_calls(graph, stack)
    first = graph.calls.index(exported[0])
    templates = _templates(graph, stack, exported)
    calls = list(exported)
    parameters = dict(graph.parameters)
    for index in range(stack.exported, len(stack.kinds)):
        template, sources = templates[stack.kinds[index]]
        call = _repeat_call(template, sources, calls[-1], f"{stack.path}.{index}")
        for old, new in zip(template.parameters, call.parameters, strict=True):
            if new not in parameters:
                parameters[new] = parameter(new, graph.parameters[old])
        calls.append(call)
    names = _last_outputs(graph, exported, calls[-1])
    rest = graph.calls[first + len(exported) :]
    after = [
        attrs.evolve(call, inputs=tuple(names.get(name, name) for name in call.inputs))
        for call in rest
    ]
    return verify_graph(
        attrs.evolve(
            graph,
            calls=(*graph.calls[:first], *calls, *after),
            outputs=map_outputs(graph.outputs, names),
            parameters=parameters,
        )
    )


def _exported_calls(graph: OperatorGraph, stack: Stack) -> list[Call]:
    """Return the calls of the exported layers, which must be consecutive."""
    layers = [f"{stack.path}.{index}" for index in range(stack.exported)]
    names = [call.name for call in graph.calls]
    if layers[0] not in names:
        raise UnequalLayersError(f"{layers[0]} has no operators")
    first = names.index(layers[0])
    if names[first : first + len(layers)] != layers:
        raise UnequalLayersError(f"the layers of {stack.path} are not consecutive")
    if sum(name.startswith(f"{stack.path}.") for name in names) > len(layers):
        raise UnequalLayersError(f"the layers of {stack.path} run more than once")
    return list(graph.calls[first : first + len(layers)])


def _templates(
    graph: OperatorGraph, stack: Stack, exported: Sequence[Call]
) -> dict[int, tuple[Call, tuple[Source, ...]]]:
    """Return, for each kind of layer, a call to repeat and the sources of its inputs."""
    templates: dict[int, tuple[Call, tuple[Source, ...]]] = {}
    blocks: dict[int, str] = {}
    for index, call in enumerate(exported):
        kind = stack.kinds[index]
        if blocks.setdefault(kind, call.block) != call.block:
            raise UnequalLayersError(f"{call.name} computes something else than equal layers")
        if index == 0:
            continue
        sources = tuple(_source(name, exported[:index]) for name in call.inputs)
        if kind in templates and templates[kind][1] != sources:
            raise UnequalLayersError(f"{call.name} has other inputs than equal layers")
        templates[kind] = (call, sources)
    missing = set(stack.kinds[stack.exported :]) - set(templates)
    output_counts = {len(graph.blocks[block].outputs) for block in blocks.values()}
    if missing or len(output_counts) != 1:
        raise UnequalLayersError(f"the layers of {stack.path} are not connected in the same way")
    return templates


def _source(name: str, previous: Sequence[Call]) -> Source:
    if name in previous[-1].outputs:
        return ("previous", previous[-1].outputs.index(name))
    for call in previous[:-1]:
        if name in call.outputs:
            raise UnequalLayersError(f"{name} is used by a layer that does not follow {call.name}")
    return ("fixed", name)


def _repeat_call(template: Call, sources: Sequence[Source], previous: Call, name: str) -> Call:
    """Return a call of the template's block under another layer's name."""
    prefix = f"{template.name}."
    outputs = tuple(f"{name}/{output.rpartition('/')[2]}" for output in template.outputs)
    return attrs.evolve(
        template,
        name=name,
        inputs=tuple(
            previous.outputs[source] if kind == "previous" else source for kind, source in sources
        ),
        parameters=tuple(
            f"{name}.{parameter[len(prefix) :]}" if parameter.startswith(prefix) else parameter
            for parameter in template.parameters
        ),
        outputs=outputs,
    )


def _last_outputs(graph: OperatorGraph, exported: Sequence[Call], last: Call) -> Mapping[str, str]:
    """Return the names of the last layer's outputs, by those of the last exported layer."""
    inner = {name for call in exported[:-1] for name in call.outputs}
    layers = {call.name for call in exported}
    outside = [call for call in graph.calls if call.name not in layers]
    used = {name for call in outside for name in call.inputs} | set(graph.output_names)
    if inner & used:
        raise UnequalLayersError("an output of an inner layer is used after the layers")
    return dict(zip(exported[-1].outputs, last.outputs, strict=True))
