"""The operator graph: a model as operators and tensors, with equal layers stored once.

A graph is a sequence of *calls* of *blocks*. A block is a list of operators over named values;
a call says which of the graph's values and parameters one use of a block takes and gives. The
layers of a transformer are one block and many calls; a graph with no repetition is one call
of one block. ``OperatorGraph.networkx`` is the whole graph with every call written out.
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
    """A tensor argument of an operator: the name of a value or parameter."""

    name: str


Arg: TypeAlias = (
    "Ref | int | float | bool | str | sympy.Expr | Span | Join | tuple[Arg, ...] | None"
)
"""What an operator's argument may be; a dtype is its name, a list is a tuple."""


@attrs.frozen
class Tensor:
    """A value: its name, its shape and its dtype (``"float32"``)."""

    name: str
    shape: tuple[Size, ...]
    dtype: str

    @property
    def elements(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    @property
    def bytes(self) -> Any:
        """Bytes of the whole tensor, as a size."""
        return self.elements * BYTES[self.dtype]


@attrs.frozen
class Input(Tensor):
    """A tensor the model takes; ``axes`` names its axes where the loader knows (else ``""``).

    ``least`` and ``most`` have the smallest and the largest size of each axis for which the graph
    is the model, None where there is no limit; they are empty where no axis has one. An input that
    is ``counted`` need not be given: it is then 0, 1, 2, ... along its last axis (positions).
    """

    axes: tuple[str, ...] = ()
    least: tuple[int | None, ...] = ()
    most: tuple[int | None, ...] = ()
    counted: bool = False


@attrs.frozen
class Parameter(Tensor):
    """A weight (``kind`` is ``"parameter"``), a buffer or a constant in the model's code.

    ``data`` is the base64 of a buffer's little-endian bytes where the model computes it itself
    and no checkpoint holds it; ``aliases`` are further names under which a checkpoint may hold
    it (tied weights).
    """

    kind: str = "parameter"
    data: str | None = None
    aliases: tuple[str, ...] = ()


@attrs.frozen
class State:
    """A value kept between steps for every position: a key or value cache.

    Its contents are those of ``value``, so it is split as that value is.
    """

    name: str
    value: str


@attrs.frozen
class Operator:
    """One operator.

    ``target`` is the overload (``"aten.linear.default"``); ``args`` has every argument by its
    schema's name, defaults filled in, absent optional tensors left out; ``module`` is the path of
    the module it came from and ``source`` the line of the model's code. In a device's graph
    ``origin`` is the name of the operator of the model's graph that it serves.
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
        """The names of its tensor arguments, in order, lists flattened."""
        return tuple(ref.name for ref in references(self.args.values()))

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """For each of ``inputs``, the argument it stands in."""
        return tuple(slot for slot, arg in self.args.items() for _ in references([arg]))


def references(args: Iterable[Arg]) -> Iterator[Ref]:
    """Every tensor argument within these arguments, in order."""
    for arg in args:
        if isinstance(arg, Ref):
            yield arg
        elif isinstance(arg, tuple):
            yield from references(arg)


def rename(arg: Arg, names: Mapping[str, str]) -> Arg:
    """The argument with its tensors renamed; names that are absent stay."""
    if isinstance(arg, Ref):
        return Ref(names.get(arg.name, arg.name))
    if isinstance(arg, tuple):
        return tuple(rename(part, names) for part in arg)
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
    """One use of a block: the graph's names for the block's inputs, parameters and outputs."""

    name: str
    block: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]

    def names(self, block: Block) -> dict[str, str]:
        """The graph's name of each of the block's values."""
        own = {name: f"{self.name}/{name}" if self.name else name for name in block.tensors}
        own.update(zip(block.inputs, self.inputs, strict=True))
        own.update(zip(block.parameters, self.parameters, strict=True))
        own.update(zip(block.outputs, self.outputs, strict=True))
        return own


@attrs.frozen
class OperatorGraph:
    """A model as operators and tensors.

    Parameters
    ----------
    blocks, calls
        The operators; see the module.
    inputs
        What the model takes, by the model's own argument names.
    outputs
        The structure the model returns: a value's name, or a tuple or dict of structures
        (a dict with the key ``"$class"`` names the class it was).
    parameters
        Weights and buffers, by the model's own names.
    source
        Where the graph came from: a folder, a file, a class.
    remarks
        What its user should know of how it was loaded, a sentence each.
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
        """The names of the values the model returns, in order."""
        return tuple(leaves_of(self.outputs))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The values that calls pass to each other, and the model's inputs and parameters."""
        found: dict[str, Tensor] = {**self.inputs, **self.parameters}
        for call in self.calls:
            block = self.blocks[call.block]
            for own, name in zip(block.outputs, call.outputs, strict=True):
                found[name] = attrs.evolve(block.tensors[own], name=name)
        return found

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The calls that are layers.

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

    def expanded(self) -> Iterator[tuple[Call, Operator]]:
        """Every operator of every call, in order, under the graph's names."""
        for call in self.calls:
            block = self.blocks[call.block]
            names = call.names(block)
            for operator in block.operators:
                yield call, renamed(operator, names, call.name)

    @cached_property
    def networkx(self) -> networkx.MultiDiGraph:
        """The whole graph: a node an operator, an edge a tensor.

        Inputs, parameters and outputs are nodes too; the attribute ``kind`` tells which.
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
                here = renamed(operator, names, call.name)
                graph.add_node(here.name, kind="operator", operator=here)
                for own, name in zip(operator.inputs, here.inputs, strict=True):
                    graph.add_edge(home[name], here.name, tensor=block.tensors[own], value=name)
                home.update(dict.fromkeys(here.outputs, here.name))
        for position, name in enumerate(self.output_names):
            graph.add_node(f"output.{position}", kind="output", value=name)
            graph.add_edge(home[name], f"output.{position}", tensor=self.tensors[name], value=name)
        return graph


def unfolded(graph: OperatorGraph, blocks: Iterable[str]) -> OperatorGraph:
    """The graph with a block of its own for every call of some blocks."""
    apart = set(blocks)
    found = {name: block for name, block in graph.blocks.items() if name not in apart}
    calls = []
    for number, call in enumerate(graph.calls):
        if call.block in apart:
            own = f"{call.block}:{number}"
            found[own] = attrs.evolve(graph.blocks[call.block], name=own)
            call = attrs.evolve(call, block=own)
        calls.append(call)
    return attrs.evolve(graph, blocks=found, calls=tuple(calls))


def renamed(operator: Operator, names: Mapping[str, str], prefix: str) -> Operator:
    """The operator under other names of its values, its own name prefixed."""
    return attrs.evolve(
        operator,
        name=f"{prefix}/{operator.name}" if prefix else operator.name,
        args={key: rename(arg, names) for key, arg in operator.args.items()},
        outputs=tuple(names.get(name, name) for name in operator.outputs),
        module=operator.module.replace("*", prefix.rsplit(".", 1)[-1])
        if prefix
        else operator.module,
    )


def leaves_of(structure: Any) -> Iterator[str]:
    """The names in a structure of outputs, in order."""
    if isinstance(structure, str):
        yield structure
    elif isinstance(structure, Mapping):
        for key, part in structure.items():
            if key != "$class":
                yield from leaves_of(part)
    elif isinstance(structure, tuple | list):
        for part in structure:
            yield from leaves_of(part)


def map_leaves(structure: Any, names: Mapping[str, str]) -> Any:
    """A structure of outputs with its names replaced; names that are absent stay."""
    if isinstance(structure, str):
        return names.get(structure, structure)
    if isinstance(structure, Mapping):
        return {
            key: part if key == "$class" else map_leaves(part, names)
            for key, part in structure.items()
        }
    if isinstance(structure, tuple | list):
        return tuple(map_leaves(part, names) for part in structure)
    return structure


def verify_graph(graph: OperatorGraph) -> OperatorGraph:
    """The graph itself, if it is legal: every name is defined once and before it is used.

    Raises
    ------
    ParframeError
        Naming the first call, operator and value that is not.
    """
    known = {**graph.inputs, **graph.parameters}
    for call in graph.calls:
        block = graph.blocks.get(call.block)
        if block is None:
            raise _illegal(call.name, f"calls block {call.block!r}, which is not in the graph")
        widths = (
            (call.inputs, block.inputs),
            (call.parameters, block.parameters),
            (call.outputs, block.outputs),
        )
        if any(len(outer) != len(inner) for outer, inner in widths):
            raise _illegal(call.name, f"does not fit the signature of block {call.block!r}")
        for name in (*call.inputs, *call.parameters):
            if name not in known:
                raise _illegal(call.name, f"uses {name!r} before it is defined")
        for name, own in zip(call.outputs, block.outputs, strict=True):
            known[name] = block.tensors[own]
    for block in graph.blocks.values():
        _verify_block(block)
    for name in graph.output_names:
        if name not in known:
            raise _illegal("outputs", f"returns {name!r}, which nothing defines")
    return graph


def _verify_block(block: Block) -> None:
    defined = set(block.inputs) | set(block.parameters)
    for operator in block.operators:
        for name in operator.inputs:
            if name not in defined:
                raise _illegal(operator.name, f"uses {name!r} before it is defined")
        for name in operator.outputs:
            if name in defined or name not in block.tensors:
                raise _illegal(operator.name, f"defines {name!r} twice or without a shape")
            defined.add(name)
    for name in (*block.outputs, *(state.value for state in block.states)):
        if name not in defined:
            raise _illegal(block.name, f"returns {name!r}, which nothing defines")


def _illegal(where: str, what: str) -> ParframeError:
    return ParframeError("graph", where or "graph", what, "load the model again with parframe.load")
