"""A device's program as an fx graph module: equal layers are one submodule, called many times."""

from __future__ import annotations

import operator as python
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import attrs
import sympy
import torch
from torch.fx import GraphModule, Node

from parframe.errors import ParframeError
from parframe.graph import Arg, Block, Operator, OperatorGraph, Ref
from parframe.ops.implementations import parameter_names, registered_operator, runtime_function
from parframe.ops.schema import default_value, is_dtype
from parframe.plan import group_axes
from parframe.rules import DistributedForm
from parframe.rules.communication import COMMUNICATION_OPERATORS, SHARD
from parframe.rules.implementation import load_function
from parframe.rules.table import DISTRIBUTED_FORMS, RULES, communicates
from parframe.runtime.collectives import CollectiveCall, GroupInfo, emit_collective
from parframe.runtime.graph_writer import GraphWriter, Number
from parframe.runtime.regions import take
from parframe.simulation.interpreter import widen_dtype
from parframe.sizes import Size, parse_size, symbols_of

BLOCKS = "blocks"
"""The submodule that holds the equal layers' code."""


@attrs.frozen
class Target:
    """Device and process groups of a rank module.

    If ``dtype`` is given, no floating-point result is narrower.
    """

    device: torch.device
    dtype: torch.dtype | None
    find_group: Callable[[tuple[str, ...]], GroupInfo]


class Region(torch.nn.Module):
    """A block that is called more than once, and that a compiler compiles once for all calls."""

    def __init__(self, body: GraphModule) -> None:
        super().__init__()
        self.body = body
        self._nested = torch.compiler.nested_compile_region(lambda *values: body(*values))

    def forward(self, *values: Any) -> Any:
        """Compute the block."""
        return self._nested(*values) if torch.compiler.is_compiling() else self.body(*values)


def emit(
    graph: OperatorGraph,
    root: torch.nn.Module,
    formulas: Mapping[str, Size],
    symbols: Sequence[str],
    target: Target,
) -> GraphModule:
    """Write a folded program as a graph module under a module that has its parameters.

    The graph module takes the program's inputs in order, then ``symbols`` (those that
    `symbols_to_give` finds), and returns a dict of the outputs. ``formulas`` give further symbols
    in terms of other symbols.
    """
    root.add_module(BLOCKS, torch.nn.Module())
    names = {name: f"block{number}" for number, name in enumerate(graph.blocks)}
    taken: dict[str, tuple[str, ...]] = {}
    for name, block in graph.blocks.items():
        module, taken[name] = _block(block, target)
        again = sum(call.block == name for call in graph.calls) > 1
        root.get_submodule(BLOCKS).add_module(names[name], Region(module) if again else module)
    writer = GraphWriter()
    values: dict[str, Node] = {}
    for number, name in enumerate(graph.inputs):
        values[name] = writer.graph.placeholder(f"input_{number}")
    for symbol in symbols:
        writer.sizes[symbol] = writer.graph.placeholder(symbol)
    for name, tensor in graph.inputs.items():
        _note_sizes(writer, values[name], tensor.shape)
    for symbol, size in formulas.items():
        if symbol not in writer.sizes:
            writer.formulas[symbol] = size
    for name in graph.parameters:
        values[name] = writer.graph.get_attr(name)
    for call in graph.calls:
        block = graph.blocks[call.block]
        given = [values[name] for name in (*call.inputs, *call.parameters)]
        numbers = [writer.number(parse_size(symbol)) for symbol in taken[call.block]]
        result = writer.graph.call_module(f"{BLOCKS}.{names[call.block]}", (*given, *numbers))
        for place, name in enumerate(call.outputs):
            values[name] = writer.call(python.getitem, result, place)
    writer.graph.output({key: values[name] for key, name in graph.outputs.items()})
    return GraphModule(root, writer.graph)


def symbols_to_give(graph: OperatorGraph, formulas: Mapping[str, Size]) -> tuple[str, ...]:
    """Return the symbols that operators use and that neither inputs nor formulas determine."""
    known = {
        size.name for tensor in graph.inputs.values() for size in tensor.shape if _is_symbol(size)
    }
    waiting = [symbol for block in graph.blocks.values() for symbol in _symbols(block)]
    needed: set[str] = set()
    while waiting:
        symbol = waiting.pop()
        if symbol in known:
            continue
        known.add(symbol)
        if symbol in formulas:
            waiting.extend(symbols_of(formulas[symbol]))
        else:
            needed.add(symbol)
    return tuple(sorted(needed))


def _block(block: Block, target: Target) -> tuple[GraphModule, tuple[str, ...]]:
    """Write the code of a block; return it with the symbols that it takes after other inputs."""
    writer = GraphWriter()
    values: dict[str, Node] = {}
    for number, name in enumerate((*block.inputs, *block.parameters)):
        values[name] = writer.graph.placeholder(f"value_{number}")
    shapes = {name: block.tensors[name].shape for name in block.inputs}
    known = {size.name for shape in shapes.values() for size in shape if _is_symbol(size)}
    symbols = tuple(sorted(_symbols(block) - known))
    for symbol in symbols:
        writer.sizes[symbol] = writer.graph.placeholder(symbol)
    for name, shape in shapes.items():
        _note_sizes(writer, values[name], shape)
    for operator in block.operators:
        emission = _Emission(writer, values, block, operator, target)
        results = emission.results()
        for place, name in enumerate(operator.outputs):
            many = len(operator.outputs) > 1
            values[name] = writer.call(python.getitem, results, place) if many else results
    writer.graph.output(tuple(values[name] for name in block.outputs))
    return GraphModule(torch.nn.Module(), writer.graph), symbols


def _note_sizes(writer: GraphWriter, node: Node, shape: tuple[Any, ...]) -> None:
    """Learn the values of symbols from the shape of a tensor."""
    for axis, size in enumerate(shape):
        if _is_symbol(size) and size.name not in writer.sizes:
            writer.sizes[size.name] = writer.call(torch.ops.aten.sym_size.int, node, axis)


def _is_symbol(size: Any) -> TypeGuard[sympy.Symbol]:
    return isinstance(size, sympy.Symbol)


def _symbols(block: Block) -> set[str]:
    """Return the symbols that the block's operators use."""
    found: set[str] = set()
    for operator in block.operators:
        waiting: list[Any] = list(operator.args.values())
        while waiting:
            arg = waiting.pop()
            if isinstance(arg, tuple):
                waiting.extend(arg)
            elif attrs.has(type(arg)) and not isinstance(arg, Ref):
                waiting.extend(attrs.astuple(arg, recurse=False))
            elif isinstance(arg, sympy.Expr):
                found |= symbols_of(arg)
        if communicates(operator):
            for name in operator.outputs:
                found |= {s for size in block.tensors[name].shape for s in symbols_of(size)}
    return found


@attrs.frozen
class _Emission:
    """One operator that is being written."""

    writer: GraphWriter
    values: Mapping[str, Node]
    block: Block
    operator: Operator
    target: Target

    def results(self) -> Any:
        """Write the operator, and return the node of its results."""
        target = self.operator.target
        if target == SHARD.target:
            part: Any = self.operator.args["part"]
            return take(self.writer, self.values[self.operator.inputs[0]], part)
        form = DISTRIBUTED_FORMS.get(target)
        if form is not None:
            return self._distributed(form)
        if target in COMMUNICATION_OPERATORS:
            return self._collective()
        function = runtime_function(self.operator)
        return self._plain() if function is None else self._call(function)

    def _value(self, arg: Arg) -> Any:
        if isinstance(arg, Ref):
            return self.values[arg.name]
        if isinstance(arg, tuple):
            return [self._value(part) for part in arg]
        if isinstance(arg, sympy.Expr):
            return self.writer.number(arg)
        return arg

    def _plain(self) -> Node:
        """Call an operator of PyTorch, its arguments in the forms of its schema."""
        operator = self.operator
        target = registered_operator(operator)
        ordered: list[Any] = []
        named: dict[str, Any] = {}
        for argument in target._schema.arguments:
            value = self._value(operator.args.get(argument.name))
            if argument.name == "device" and not operator.inputs:
                value = self.target.device
            if value is None and argument.name not in operator.args:
                value = default_value(argument)
            if is_dtype(argument) and isinstance(value, str):
                value = widen_dtype(getattr(torch, value), self.target.dtype)
            if argument.kwarg_only:
                named[argument.name] = value
            else:
                ordered.append(value)
        return self.writer.graph.call_function(target, tuple(ordered), named)

    def _call(self, function: Callable[..., Any]) -> Node:
        """Call a function that a rule gives, by the names of the operator's arguments."""
        args = self.operator.args
        rule = RULES.get(self.operator.target)
        if rule is not None and rule.runtime is not None and rule.slots:
            slots = rule.slots.split()
            return self.writer.call(function, *(self._value(args.get(slot)) for slot in slots))
        named = {slot: self._value(arg) for slot, arg in args.items()}
        return self.writer.graph.call_function(function, (), named)

    def _collective(self) -> Node:
        operator = self.operator
        given = self.values[operator.inputs[0]] if operator.inputs else None
        call = CollectiveCall(
            operator,
            given,
            self.block.tensors[operator.outputs[0]],
            self.target.find_group(group_axes(operator)),
            self.target.device,
        )
        if call.group.size == 1 and given is not None:
            return given
        return emit_collective(self.writer, call)

    def _distributed(self, form: DistributedForm) -> Node:
        """Call the function of one rank of a distributed form."""
        args = self.operator.args
        function = load_function(form.run)
        parameters = parameter_names(function)
        known = {*parameters, *form.lists.values(), *_COMMUNICATION}
        unknown = [slot for slot, arg in args.items() if arg is not None and slot not in known]
        if unknown:
            raise ParframeError(
                "run",
                f"{self.operator.name} ({self.operator.module})",
                f"{form.target} cannot take {unknown[0]!r} between processes",
                form.hint,
            )
        group = self.target.find_group(group_axes(self.operator))
        more: dict[str, Any] = {name: self._sizes(form, name, group) for name in form.sizes}
        more |= {"rank": group.rank, "group": group.name}
        values = (more[n] if n in more else self._value(args.get(n)) for n in parameters)
        return self.writer.call(function, *values)

    def _sizes(self, form: DistributedForm, name: str, group: GroupInfo) -> list[Number]:
        """Return the sizes of every rank's part; those of a step with a cache are equal."""
        known: Any = self.operator.args.get(name)
        if known is not None:
            return [self.writer.number(size) for size in known]
        slot, dim = form.sizes[name]
        ref: Any = self.operator.args[slot]
        own = self.writer.call(torch.ops.aten.sym_size.int, self.values[ref.name], dim)
        return [own] * group.size


_COMMUNICATION = ("axes", "tag", "travels")
"""The arguments of a distributed form that say where it communicates."""
