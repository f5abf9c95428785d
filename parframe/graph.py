"""Operator graph: a model as operators and tensors, with equal layers stored once.

A graph is a sequence of *calls* of *blocks*. A block is a list of operators over named values. A
call says which of the graph's values and parameters one use of a block takes and returns. The
layers of a transformer are one block and many calls; a graph without repetition is one call of one
block. ``OperatorGraph.networkx`` is the whole graph with the operators of every call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import attrs
import networkx
import sympy

from parframe.errors import ParframeError
from parframe.layout import Join, Span
from parframe.sizes import Size, product

BYTES: Mapping[str, float] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1,
    "float8_e5m2": 1, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of one element, by dtype."""


@attrs.frozen
class Ref:
    """Tensor argument of an operator: the name of a value or parameter."""

    name: str


Arg: TypeAlias = (
    "Ref | int | float | bool | str | sympy.Expr | Span | Join | tuple[Arg, ...] | None"
)
"""Argument of an operator; a dtype is its name, a list is a tuple."""


@attrs.frozen
class Tensor:
    """Value: its name, its shape and its dtype (``"float32"``)."""

    name: str
    shape: tuple[Size, ...]
    dtype: str

    @property
    def elements(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def bytes(self) -> Any:
        """Bytes of the whole tensor, as a size."""
        return self.elements * BYTES[self.dtype]


@attrs.frozen
class Input(Tensor):
    """Input tensor of the model.

    - ``axes``: the names of its dims where the loader knows them, else ``""``.
    - ``least``, ``most``: the smallest and the largest size of each dim for which the graph is the
      model; None without a limit. Both are empty where no dim has a limit.
    - ``counted``: whether the input may be omitted; it is then 0, 1, 2, ... along its last dim
      (positions).
    """

    axes: tuple[str, ...] = ()
    least: tuple[int | None, ...] = ()
    most: tuple[int | None, ...] = ()
    counted: bool = False


@attrs.frozen
class Parameter(Tensor):
    """Weight, buffer or constant of the model.

    - ``kind``: ``"parameter"`` for a weight, else the kind of buffer or constant.
    - ``data``: the base64 of a buffer's little-endian bytes, where the model computes the buffer
      itself and no checkpoint has it.
    - ``aliases``: further names that a checkpoint may have for it (tied weights).
    """

    kind: str = "parameter"
    data: str | None = None
    aliases: tuple[str, ...] = ()


@attrs.frozen
class State:
    """Value that is stored for every position between steps: a key or value cache.

    Its contents are those of ``value``, so it is split as that value is.
    """

    name: str
    value: str


@attrs.frozen
class Operator:
    """Operator of a graph.

    - ``target``: the overload (``"aten.linear.default"``).
    - ``args``: every argument by its schema's name, with defaults; absent optional tensors are left
      out.
    - ``source``: the line of the model's code.
    - ``origin``: in a device's graph, the name of the model's operator that it is part of.
    """

    name: str
    target: str
    args: Mapping[str, Arg]
    outputs: tuple[str, ...]
    module: str = ""
    source: str = ""
    origin: str = ""

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of its tensor arguments, in order, lists flattened."""
        return tuple(ref.name for ref in references(self.args.values()))

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Name of the argument of each of ``inputs``."""
        return tuple(slot for slot, arg in self.args.items() for _ in references([arg]))


def references(args: Iterable[Arg]) -> Iterator[Ref]:
    """Yield every tensor argument within these arguments, in order."""
    for arg in args:
        if isinstance(arg, Ref):
            yield arg
        elif isinstance(arg, tuple):
            yield from references(arg)


def rename_arg(arg: Arg, names: Mapping[str, str]) -> Arg:
    """Return an argument with its tensors renamed; absent names stay."""
    if isinstance(arg, Ref):
        return Ref(names.get(arg.name, arg.name))
    if isinstance(arg, tuple):
        return tuple(rename_arg(part, names) for part in arg)
    return arg


@attrs.frozen
class Block:
    """Operators over named values, used by one or more calls.

    ``inputs``, ``parameters`` and the operators' outputs are the values; ``tensors`` has all of
    them by name, in order of definition. A parameter's name here is the block's own.
    """

    name: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    states: tuple[State, ...] = ()


@attrs.frozen
class Call:
    """Use of a block: the graph's names for the block's inputs, parameters and outputs."""

    name: str
    block: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]

    def names(self, block: Block) -> dict[str, str]:
        """Return the graph's name of each of the block's values."""
        own = {name: f"{self.name}/{name}" if self.name else name for name in block.tensors}
        own.update(zip(block.inputs, self.inputs, strict=True))
        own.update(zip(block.parameters, self.parameters, strict=True))
        own.update(zip(block.outputs, self.outputs, strict=True))
        return own


@attrs.frozen
class OperatorGraph:
    """Model as operators and tensors.

    Parameters
    ----------
    blocks, calls
        The operators; see the module.
    inputs
        The inputs of the model, by the model's own argument names.
    outputs
        The structure that the model returns: a value's name, or a tuple or dict of structures (a
        dict with the key ``"$class"`` names the class it was).
    parameters
        Weights and buffers, by the model's own names.
    source
        The source of the graph: a folder, a file, a class.
    config
        The configuration of a transformers model, else empty.
    remarks
        Remarks for the user on how the model was loaded, a sentence each.
    """

    blocks: Mapping[str, Block]
    calls: tuple[Call, ...]
    inputs: Mapping[str, Input]
    outputs: Any
    parameters: Mapping[str, Parameter]
    source: str = ""
    config: Mapping[str, Any] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """Names of the values that the model returns, in order."""
        return tuple(output_leaves(self.outputs))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Values that calls pass to each other, and the model's inputs and parameters."""
        found: dict[str, Tensor] = {**self.inputs, **self.parameters}
        for call in self.calls:
            block = self.blocks[call.block]
            for own, name in zip(block.outputs, call.outputs, strict=True):
                found[name] = attrs.evolve(block.tensors[own], name=name)
        return found

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the calls that are layers.

        These are the entries of lists of modules (``h.3``), or of blocks called more than once.
        """
        listed = tuple(
            number
            for number, call in enumerate(self.calls)
            if call.name.rsplit(".", 1)[-1].isdecimal()
        )
        uses = Counter(call.block for call in self.calls)
        return listed or tuple(
            number for number, call in enumerate(self.calls) if uses[call.block] > 1
        )

    def expand(self) -> Iterator[tuple[Call, Operator]]:
        """Yield every operator of every call, in order, under the graph's names."""
        for call in self.calls:
            block = self.blocks[call.block]
            names = call.names(block)
            for operator in block.operators:
                yield call, rename_operator(operator, names, call.name)

    @cached_property
    def networkx(self) -> networkx.MultiDiGraph:
        """Whole graph, in which a node is an operator and an edge a tensor.

        Inputs, parameters and outputs are nodes too; the attribute ``kind`` says which.
        """
        graph = networkx.MultiDiGraph()
        home: dict[str, str] = {}
        for kind, tensors in (("input", self.inputs), ("parameter", self.parameters)):
            for name, tensor in tensors.items():
                graph.add_node(name, kind=kind, tensor=tensor)
                home[name] = name
        for call in self.calls:
            block = self.blocks[call.block]
            names = call.names(block)
            for operator in block.operators:
                here = rename_operator(operator, names, call.name)
                graph.add_node(here.name, kind="operator", operator=here)
                for own, name in zip(operator.inputs, here.inputs, strict=True):
                    graph.add_edge(home[name], here.name, tensor=block.tensors[own], value=name)
                home.update(dict.fromkeys(here.outputs, here.name))
        for position, name in enumerate(self.output_names):
            graph.add_node(f"output.{position}", kind="output", value=name)
            graph.add_edge(home[name], f"output.{position}", tensor=self.tensors[name], value=name)
        return graph


def unfold_blocks(graph: OperatorGraph, blocks: Iterable[str]) -> OperatorGraph:
    """Return the graph with a block of its own for every call of some blocks."""
    selected = set(blocks)
    found = {name: block for name, block in graph.blocks.items() if name not in selected}
    calls = []
    for number, call in enumerate(graph.calls):
        if call.block in selected:
            own = f"{call.block}:{number}"
            found[own] = attrs.evolve(graph.blocks[call.block], name=own)
            call = attrs.evolve(call, block=own)
        calls.append(call)
    return attrs.evolve(graph, blocks=found, calls=tuple(calls))


def rename_operator(operator: Operator, names: Mapping[str, str], prefix: str) -> Operator:
    """Return an operator under other names of its values, its own name prefixed."""
    return attrs.evolve(
        operator,
        name=f"{prefix}/{operator.name}" if prefix else operator.name,
        args={key: rename_arg(arg, names) for key, arg in operator.args.items()},
        outputs=tuple(names.get(name, name) for name in operator.outputs),
        module=operator.module.replace("*", prefix.rsplit(".", 1)[-1])
        if prefix
        else operator.module,
    )


def output_leaves(structure: Any) -> Iterator[str]:
    """Yield the names in a structure of outputs, in order."""
    if isinstance(structure, str):
        yield structure
    elif isinstance(structure, Mapping):
        for key, part in structure.items():
            if key != "$class":
                yield from output_leaves(part)
    elif isinstance(structure, tuple | list):
        for part in structure:
            yield from output_leaves(part)


def map_outputs(structure: Any, names: Mapping[str, str]) -> Any:
    """Return a structure of outputs with its names replaced; absent names stay."""
    if isinstance(structure, str):
        return names.get(structure, structure)
    if isinstance(structure, Mapping):
        return {
            key: part if key == "$class" else map_outputs(part, names)
            for key, part in structure.items()
        }
    if isinstance(structure, tuple | list):
        return tuple(map_outputs(part, names) for part in structure)
    return structure


def verify_graph(graph: OperatorGraph) -> OperatorGraph:
    """Return the graph if it is valid: every name is defined once and before it is used.

    Raise ``ParframeError`` with the first call, operator or value that is invalid.
    """
    known = {**graph.inputs, **graph.parameters}
    for call in graph.calls:
        block = graph.blocks.get(call.block)
        if block is None:
            raise invalid_graph(call.name, f"calls block {call.block!r}, which is not in the graph")
        interfaces = (
            (call.inputs, block.inputs),
            (call.parameters, block.parameters),
            (call.outputs, block.outputs),
        )
        if any(len(outer) != len(inner) for outer, inner in interfaces):
            raise invalid_graph(
                call.name, f"does not match the inputs and outputs of block {call.block!r}"
            )
        for name in (*call.inputs, *call.parameters):
            if name not in known:
                raise invalid_graph(call.name, f"uses {name!r} before it is defined")
        for name, own in zip(call.outputs, block.outputs, strict=True):
            known[name] = block.tensors[own]
    for block in graph.blocks.values():
        _verify_block(block)
    for name in graph.output_names:
        if name not in known:
            raise invalid_graph("outputs", f"returns {name!r}, which is not defined")
    return graph


def _verify_block(block: Block) -> None:
    defined = set(block.inputs) | set(block.parameters)
    for operator in block.operators:
        for name in operator.inputs:
            if name not in defined:
                raise invalid_graph(operator.name, f"uses {name!r} before it is defined")
        for name in operator.outputs:
            if name in defined or name not in block.tensors:
                raise invalid_graph(operator.name, f"defines {name!r} twice or without a shape")
            defined.add(name)
    for name in (*block.outputs, *(state.value for state in block.states)):
        if name not in defined:
            raise invalid_graph(block.name, f"returns {name!r}, which is not defined")


def invalid_graph(where: str, what: str) -> ParframeError:
    """Return the error for an invalid part of a graph."""
    return ParframeError("graph", where or "graph", what, "load the model again with parframe.load")
