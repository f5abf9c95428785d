"""Loaded model and its named dimensions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.dims import Dimensions
from parframe.graph import BYTES, OperatorGraph, Tensor
from parframe.layout import dims_of
from parframe.report.formatting import amount, shortened
from parframe.report.screen import FirstThatFits, heading, table
from parframe.sizes import Size, format_size

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_MOST = 3


def model_facts(graph: OperatorGraph) -> dict[str, Any]:
    """Return the source, the size, the inputs and the outputs of a graph."""
    weights = [p for p in graph.parameters.values() if p.kind == "parameter"]
    return {
        "source": graph.source,
        "architecture": (graph.config.get("architectures") or [""])[0],
        "operators": sum(len(graph.blocks[call.block].operators) for call in graph.calls),
        "parameters": _sum(tensor.elements for tensor in weights),
        "bytes": int(_sum(tensor.elements * BYTES[tensor.dtype] for tensor in weights)),
        "dtypes": sorted({tensor.dtype for tensor in weights}),
        "blocks": [
            {
                "name": block.name,
                "operators": len(block.operators),
                "calls": sum(call.block == block.name for call in graph.calls),
            }
            for block in graph.blocks.values()
        ],
        "inputs": {name: _shape(tensor) for name, tensor in graph.inputs.items()},
        "outputs": {
            label: _shape(graph.tensors[name]) for name, label in output_labels(graph).items()
        },
    }


def draw_model(facts: Mapping[str, Any], brief: bool = False) -> Iterator[RenderableType]:
    """Yield the model in one line, and tables of its blocks and tensors unless ``brief``."""
    size = f"{facts['parameters']:,} parameters, {amount(facts['bytes'])} "
    size += f"({', '.join(facts['dtypes']) or 'no weights'})"
    name = facts["architecture"] or facts["source"]
    yield FirstThatFits(
        *(heading("Model", f"{text}: {size}") for text in (name, shortened(name, 40)))
    )
    if brief:
        return
    yield table(
        ("block", "operators", "calls"),
        (
            [block["name"], str(block["operators"]), str(block["calls"])]
            for block in facts["blocks"]
        ),
        right=("operators", "calls"),
    )
    rows = [["input", name, shape] for name, shape in facts["inputs"].items()]
    rows += [["output", name, shape] for name, shape in facts["outputs"].items()]
    yield table(("", "tensor", "shape"), rows)


def dimension_facts(dimensions: Dimensions, graph: OperatorGraph) -> list[dict[str, Any]]:
    """Return each dimension's name, role, size, and the weights and inputs that have it."""
    places: dict[str, dict[str, None]] = {name: {} for name in dimensions.dimensions}
    labels = output_labels(graph)
    for name in (*graph.inputs, *graph.parameters, *graph.output_names):
        for number, axis in enumerate(dimensions.outer[name]):
            for dim in dims_of(axis):
                if dim in places:
                    place = labels.get(name, _NUMBER.sub("*", name))
                    places[dim][f"{place}[{number}]"] = None
    if "layers" in places:
        repeated = [call.name for call in graph.calls if _calls(graph, call.block) > 1]
        places["layers"] = dict.fromkeys(_NUMBER.sub("*", f"{name}.")[:-1] for name in repeated)
    return [
        {
            "name": dimension.name,
            "role": dimension.role,
            "size": format_size(dimension.size),
            "occurs": list(places[dimension.name]),
        }
        for dimension in dimensions.dimensions.values()
    ]


def draw_dimensions(facts: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Yield the table of named dimensions."""
    yield heading("Dimensions")
    yield table(
        ("name", "role", "size", "tensors: name[dim]"),
        ([f["name"], f["role"], f["size"], _places(f["occurs"])] for f in facts),
        right=("size",),
    )


def _places(found: list[str]) -> str:
    shown = found[:_MOST]
    if len(found) > _MOST:
        shown.append(f"and {len(found) - _MOST} more")
    return "\n".join(shown) or "within layers only"


def _calls(graph: OperatorGraph, block: str) -> int:
    return sum(call.block == block for call in graph.calls)


def output_labels(graph: OperatorGraph) -> dict[str, str]:
    """Return the model's own names of its outputs, by value."""
    own = graph.outputs.items() if isinstance(graph.outputs, Mapping) else ()
    labels = {name: label for label, name in own if isinstance(name, str) and label != "$class"}
    return {name: labels.get(name, name) for name in graph.output_names}


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} [{', '.join(format_size(size) for size in tensor.shape)}]"


def _sum(sizes: Iterable[Size]) -> int:
    return sum(int(size) for size in sizes)
