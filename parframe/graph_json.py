"""Operator graphs as JSON text and back, without torch; the text may be untrusted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import sympy

from parframe.atomic_files import write_text
from parframe.errors import ParframeError
from parframe.graph import (
    BYTES,
    Arg,
    Block,
    Call,
    Input,
    Operator,
    OperatorGraph,
    Parameter,
    Ref,
    State,
    Tensor,
    invalid_graph,
    verify_graph,
)
from parframe.json_input import parse_json, read_text
from parframe.layout import Join, Region, Span
from parframe.sizes import Size, format_size, parse_size

SCHEMA = 1
"""Version of the JSON that `dump_graph` writes and `parse_graph` reads."""

LARGEST_SIZE = 1 << 48
"""Largest size of a tensor dim."""

_DEEPEST = 40

T = TypeVar("T")


def encode_size(size: Size) -> int | str:
    """Return a size as JSON: a number, or text for an expression."""
    return size if isinstance(size, int) else format_size(size)


def decode_size(value: Any) -> Size:
    """Return the size that `encode_size` wrote.

    Raise ``ParframeError`` if the value is not a size.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise invalid_graph("size", f"{_shown(value)} is not a size")
    return parse_size(value) if isinstance(value, str) else value


def encode_arg(arg: Arg) -> Any:
    """Return an operator's argument as JSON."""
    match arg:
        case None | bool() | int() | str():
            return arg
        case float():
            return arg if math.isfinite(arg) else {"float": str(arg)}
        case tuple():
            return [encode_arg(part) for part in arg]
        case Ref(name):
            return {"ref": name}
        case Span() | Join():
            return _encode_factor(arg)
        case sympy.Expr():
            return {"size": format_size(arg)}
    raise invalid_graph("argument", f"{_shown(arg)} cannot be written")


def decode_arg(value: Any, depth: int = _DEEPEST) -> Arg:
    """Return the argument that `encode_arg` wrote.

    Raise ``ParframeError`` if the value is not an argument.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == 0:
        raise invalid_graph("argument", "lists are nested too deep")
    if isinstance(value, list):
        return tuple(decode_arg(part, depth - 1) for part in value)
    if isinstance(value, dict) and len(value) == 1:
        match value:
            case {"ref": str(name)}:
                return Ref(name)
            case {"size": str(source)}:
                return parse_size(source)
            case {"float": "inf" | "-inf" | "nan" as name}:
                return float(name)
            case {"span": _} | {"join": _}:
                return _decode_factor(value, depth - 1)
    raise invalid_graph("argument", f"{_shown(value)} is not an argument")


def _encode_factor(factor: Span | Join) -> dict[str, Any]:
    if isinstance(factor, Span):
        return {"span": [encode_size(part) for part in (factor.size, factor.start, factor.stop)]}
    return {"join": [[_encode_factor(inner) for inner in part] for part in factor.parts]}


def _decode_factor(value: Any, depth: int) -> Span | Join:
    match value:
        case {"span": [size, start, stop]}:
            return Span(decode_size(size), decode_size(start), decode_size(stop))
        case {"join": list(parts)} if depth > 0:
            return Join(tuple(_decode_region(part, depth - 1) for part in parts))
    raise invalid_graph("argument", f"{_shown(value)} is not a part of a dim")


def _decode_region(value: Any, depth: int) -> Region:
    return tuple(_decode_factor(inner, depth) for inner in _typed(value, list, "region"))


def encode_operator(operator: Operator) -> dict[str, Any]:
    """Return an operator as JSON."""
    return {
        "name": operator.name,
        "target": operator.target,
        "args": {slot: encode_arg(arg) for slot, arg in operator.args.items()},
        "outputs": list(operator.outputs),
        "module": operator.module,
        "source": operator.source,
    }


def decode_operator(value: Any) -> Operator:
    """Return the operator that `encode_operator` wrote.

    Raise ``ParframeError`` if the value is not an operator.
    """
    entry = _Entry(value, "operator")
    return Operator(
        name=entry.text("name"),
        target=entry.text("target"),
        args={slot: decode_arg(arg) for slot, arg in entry.mapping("args").items()},
        outputs=entry.texts("outputs"),
        module=entry.text("module"),
        source=entry.text("source"),
    )


def encode_tensor(tensor: Tensor) -> list[Any]:
    """Return a tensor's shape and dtype as JSON."""
    return [tensor.dtype, *(encode_size(size) for size in tensor.shape)]


def decode_tensor(name: str, value: Any) -> Tensor:
    """Return the tensor that `encode_tensor` wrote.

    Raise ``ParframeError`` if the value is not a tensor.
    """
    match value:
        case [str(dtype), *sizes] if dtype in BYTES:
            shape = tuple(decode_size(size) for size in sizes)
            for size in shape:
                if isinstance(size, int) and not 0 <= size <= LARGEST_SIZE:
                    raise invalid_graph(name, f"{_shown(size)} is not the size of a dim")
            return Tensor(name, shape, dtype)
    raise invalid_graph(name, f"{_shown(value)} is not a dtype and a shape")


def dump_graph(graph: OperatorGraph) -> str:
    """Return the graph as JSON text; the same graph gives the same text."""
    content = {
        "schema": SCHEMA,
        "source": graph.source,
        "config": graph.config,
        "inputs": {name: _encode_input(tensor) for name, tensor in graph.inputs.items()},
        "outputs": graph.outputs,
        "parameters": {
            name: _encode_parameter(tensor) for name, tensor in sorted(graph.parameters.items())
        },
        "blocks": {name: _encode_block(block) for name, block in graph.blocks.items()},
        "calls": [
            [call.name, call.block, list(call.inputs), list(call.parameters), list(call.outputs)]
            for call in graph.calls
        ],
        **({"remarks": list(graph.remarks)} if graph.remarks else {}),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def parse_graph(text: str) -> OperatorGraph:
    """Read the JSON text of a graph.

    - ``text``: the text of `dump_graph`, perhaps changed by others.

    Raise ``ParframeError`` of kind ``graph`` if it is not a valid graph of this schema.
    """
    entry = _Entry(parse_json(text, "graph", allow_nan=False), "graph")
    version = entry.get("schema", int)
    if version != SCHEMA:
        raise ParframeError(
            "graph",
            "schema",
            f"the graph has schema {version}, this version reads {SCHEMA}",
            "load the model again with parframe.load" if version < SCHEMA else "update parframe",
        )
    graph = OperatorGraph(
        blocks={name: _decode_block(name, v) for name, v in entry.mapping("blocks").items()},
        calls=tuple(_decode_call(value) for value in entry.get("calls", list)),
        inputs={name: _decode_input(name, v) for name, v in entry.mapping("inputs").items()},
        outputs=_decode_outputs(entry.value.get("outputs")),
        parameters={
            name: _decode_parameter(name, value)
            for name, value in entry.mapping("parameters").items()
        },
        source=entry.text("source"),
        config=entry.mapping("config"),
        remarks=entry.texts("remarks") if "remarks" in entry.value else (),
    )
    return verify_graph(graph)


def write_graph(graph: OperatorGraph, path: str | os.PathLike[str]) -> None:
    """Write a graph as JSON; a failure keeps the old file.

    Raise ``ParframeError`` of kind ``output`` if the file cannot be written.
    """
    write_text(path, dump_graph(graph))


def read_graph(path: str | os.PathLike[str]) -> OperatorGraph:
    """Read a graph from a JSON file.

    Raise ``ParframeError`` of kind ``graph`` if the file cannot be read or is not a graph.
    """
    return parse_graph(read_text(path, "graph"))


def _encode_parameter(parameter: Parameter) -> dict[str, Any]:
    entry: dict[str, Any] = {"tensor": encode_tensor(parameter), "kind": parameter.kind}
    if parameter.aliases:
        entry["aliases"] = list(parameter.aliases)
    if parameter.data is not None:
        entry["data"] = parameter.data
    return entry


def _decode_parameter(name: str, value: Any) -> Parameter:
    entry = _Entry(value, f"parameter {name}")
    tensor = decode_tensor(name, entry.value.get("tensor"))
    if not all(isinstance(size, int) for size in tensor.shape):
        raise invalid_graph(f"parameter {name}", "its shape has symbols")
    return Parameter(
        name,
        tensor.shape,
        tensor.dtype,
        kind=entry.text("kind"),
        data=entry.text("data") if "data" in entry.value else None,
        aliases=entry.texts("aliases") if "aliases" in entry.value else (),
    )


def _encode_input(tensor: Input) -> dict[str, Any]:
    entry = {"tensor": encode_tensor(tensor), "axes": list(tensor.axes)}
    limits = {"least": tensor.least, "most": tensor.most}
    found = {**entry, **{key: list(limit) for key, limit in limits.items() if limit}}
    return {**found, "counted": True} if tensor.counted else found


def _decode_input(name: str, value: Any) -> Input:
    entry = _Entry(value, f"input {name}")
    tensor = decode_tensor(name, entry.value.get("tensor"))
    axes = entry.texts("axes")
    if len(axes) != len(tensor.shape):
        raise invalid_graph(f"input {name}", "has another number of dim names than dims")
    least, most = (_limits(entry, name, key, len(axes)) for key in ("least", "most"))
    counted = entry.value.get("counted", False)
    if not isinstance(counted, bool):
        raise invalid_graph(f"input {name}", "its `counted` is neither true nor false")
    return Input(
        name, tensor.shape, tensor.dtype, axes=axes, least=least, most=most, counted=counted
    )


def _limits(entry: _Entry, name: str, key: str, count: int) -> tuple[int | None, ...]:
    limits = tuple(entry.get(key, list)) if key in entry.value else ()
    numbers = all(limit is None or (type(limit) is int and limit > 0) for limit in limits)
    if not numbers or len(limits) not in (0, count):
        bound = {"least": "smallest", "most": "largest"}[key]
        raise invalid_graph(f"input {name}", f"its {bound} sizes are not one number for each dim")
    return limits


def _encode_block(block: Block) -> dict[str, Any]:
    return {
        "inputs": list(block.inputs),
        "parameters": list(block.parameters),
        "outputs": list(block.outputs),
        "states": {state.name: state.value for state in block.states},
        "tensors": {name: encode_tensor(tensor) for name, tensor in block.tensors.items()},
        "operators": [encode_operator(operator) for operator in block.operators],
    }


def _decode_block(name: str, value: Any) -> Block:
    entry = _Entry(value, f"block {name}")
    tensors = {own: decode_tensor(own, v) for own, v in entry.mapping("tensors").items()}
    block = Block(
        name=name,
        inputs=entry.texts("inputs"),
        parameters=entry.texts("parameters"),
        operators=tuple(decode_operator(v) for v in entry.get("operators", list)),
        outputs=entry.texts("outputs"),
        tensors=tensors,
        states=tuple(
            State(own, _typed(v, str, f"state {own}")) for own, v in entry.mapping("states").items()
        ),
    )
    for own in (*block.inputs, *block.parameters, *block.outputs):
        if own not in tensors:
            raise invalid_graph(f"block {name}", f"{own!r} has no shape")
    return block


def _decode_call(value: Any) -> Call:
    match value:
        case [str(name), str(block), list(inputs), list(parameters), list(outputs)]:
            lists = (inputs, parameters, outputs)
            return Call(name, block, *(_texts(part, f"call {name}") for part in lists))
    raise invalid_graph("calls", f"{_shown(value)} is not a call")


def _decode_outputs(value: Any, depth: int = _DEEPEST) -> Any:
    if value is None or isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return tuple(_decode_outputs(part, depth - 1) for part in value)
    if depth and isinstance(value, dict):
        return {key: _decode_outputs(part, depth - 1) for key, part in value.items()}
    raise invalid_graph("outputs", f"{_shown(value)} is not a structure of names")


class _Entry:
    """JSON object whose fields are read by type."""

    def __init__(self, value: Any, where: str) -> None:
        self.value: dict[str, Any] = _typed(value, dict, where)
        self.where = where

    def get(self, key: str, kind: type[T]) -> T:
        if key not in self.value:
            raise invalid_graph(self.where, f"{key!r} is missing")
        return _typed(self.value[key], kind, f"{self.where}, {key}")

    def text(self, key: str) -> str:
        return self.get(key, str)

    def texts(self, key: str) -> tuple[str, ...]:
        return _texts(self.get(key, list), f"{self.where}, {key}")

    def mapping(self, key: str) -> dict[str, Any]:
        return self.get(key, dict)


def _texts(values: Sequence[Any], where: str) -> tuple[str, ...]:
    return tuple(_typed(value, str, where) for value in values)


def _typed(value: Any, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid_graph(where, f"{_shown(value)} is not a {_NAMES.get(kind, kind.__name__)}")
    return value


_NAMES: Mapping[type, str] = {dict: "JSON object", list: "list", str: "text", int: "whole number"}


def _shown(value: Any) -> str:
    return repr(value)[:60]
