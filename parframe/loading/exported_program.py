"""An exported program of PyTorch as a flat program of parframe."""

from __future__ import annotations

import base64
import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, Parameter, Ref, Tensor
from parframe.loading.flat_graph import Program
from parframe.loading.source_location import module_path, source_line
from parframe.loading.symbolic_sizes import size_of
from parframe.ops.schema import bind, dtype_name

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}

_WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Operators that run a submodule, and where among their arguments it stands."""


class HollowConstantError(ParframeError):
    """A constant of a model on the meta device has no contents."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "load",
            name,
            "a tensor that the model computes when it is built could not be computed",
            "register it as a buffer that the model's _init_weights fills",
        )


@attrs.frozen
class Origin:
    """What is known of a program's inputs and weights beyond what the export holds.

    Parameters
    ----------
    axes
        The names of the axes of each input, by its name.
    data
        The tensors that no checkpoint holds, by their names in the model.
    aliases
        For the first name of each tied weight, its further names.
    files
        The files of the model's own code.
    """

    axes: Mapping[str, Sequence[str]]
    data: Mapping[str, torch.Tensor] = attrs.field(factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    files: frozenset[str] = frozenset()


def convert(exported: ExportedProgram, origin: Origin, structure: Callable[[Any], Any]) -> Program:
    """Convert an exported program.

    Parameters
    ----------
    exported
        The program, without mutation.
    origin
        Names of axes, contents of buffers.
    structure
        Turns what the model would return, with names in place of tensors, into a graph's outputs.

    Raises
    ------
    ParframeError
        If an operator or a size has no counterpart.
    """
    reader = _Reader(_symbol_names(exported, origin.axes), origin.files)
    inputs, parameters = _signature(exported, origin, reader)
    for spec in exported.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise ParframeError(
                "load",
                str(spec.target),
                "the model writes into this tensor as it runs",
                "make it return the new value instead",
            )
    results = reader.run(exported.graph_module)
    leaves = [leaf.name if isinstance(leaf, Ref) else None for leaf in results]
    returned = torch.utils._pytree.tree_unflatten(leaves, exported.call_spec.out_spec)
    return Program(
        operators=tuple(reader.operators),
        tensors=reader.tensors,
        inputs=inputs,
        parameters=parameters,
        outputs=structure(returned),
    )


def _signature(
    exported: ExportedProgram, origin: Origin, reader: _Reader
) -> tuple[dict[str, Input], dict[str, Parameter]]:
    """The program's inputs and weights; the reader learns which node is which."""
    inputs: dict[str, Input] = {}
    parameters: dict[str, Parameter] = {}
    first = {name: own for own, names in origin.aliases.items() for name in names}
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True):
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            reader.values[node] = value
        elif spec.kind is InputKind.USER_INPUT:
            tensor = reader.tensor(node.name, value)
            axes = tuple(origin.axes.get(node.name, ("",) * len(tensor.shape)))
            inputs[node.name] = Input(node.name, tensor.shape, tensor.dtype, axes=axes)
            reader.values[node] = Ref(node.name)
        elif spec.kind in _KINDS:
            name = first.get(str(spec.target), str(spec.target))
            parameters[name] = _parameter(reader.tensor(name, value), spec, exported, origin)
            reader.values[node] = Ref(name)
        else:
            raise ParframeError(
                "load", node.name, f"an input of kind {spec.kind.name}", "give a module without it"
            )
    for name in inputs.keys() & parameters.keys():
        raise ParframeError(
            "load", name, "an input and a weight have the same name", "rename one of them"
        )
    return inputs, parameters


def encode(tensor: torch.Tensor) -> str:
    """The base64 of a tensor's little-endian bytes."""
    whole = tensor.detach().cpu().contiguous()
    return base64.b64encode(
        ctypes.string_at(whole.data_ptr(), whole.nbytes) if whole.nbytes else b""
    ).decode("ascii")


def decode(parameter: Parameter) -> torch.Tensor:
    """The contents of a buffer that the graph itself carries.

    Raises
    ------
    ParframeError
        Of kind ``graph`` if it carries none, or another number of bytes than its shape needs.
    """
    kind = getattr(torch, parameter.dtype)
    shape = [int(size) for size in parameter.shape]
    try:
        content = bytearray(base64.b64decode(parameter.data or "", validate=True))
    except ValueError:
        content = bytearray()
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ParframeError(
            "graph", parameter.name, "its data does not fit its shape", "load the model again"
        )
    if not content:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(content, dtype=kind).reshape(shape)


def _parameter(tensor: Tensor, spec: Any, exported: ExportedProgram, origin: Origin) -> Parameter:
    name = tensor.name
    stored = spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent)
    data = None
    if not stored:
        content = origin.data.get(name, exported.constants.get(str(spec.target)))
        if not isinstance(content, torch.Tensor) or content.is_meta:
            raise HollowConstantError(name)
        data = encode(content)
    return Parameter(
        name,
        tensor.shape,
        tensor.dtype,
        kind=_KINDS[spec.kind],
        data=data,
        aliases=origin.aliases.get(name, ()),
    )


def _symbol_names(exported: ExportedProgram, axes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Parframe's name of each of torch's symbols: that of the input axis it is the size of."""
    names: dict[str, str] = {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for axis, size in zip(axes.get(node.name, ()), value.shape, strict=False):
            if axis and isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                names.setdefault(str(size.node.expr), axis)
    return names


class _Reader:
    """Reads fx graphs, wrapped submodules included, into one list of operators."""

    def __init__(self, symbols: Mapping[str, str], files: frozenset[str]) -> None:
        self.symbols = symbols
        self.files = files
        self.values: dict[Node, Any] = {}
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}

    def run(self, module: GraphModule, module_of_caller: str = "") -> Sequence[Any]:
        """Read every live node; what the graph returns."""
        needed = _live(module)
        for node in module.graph.nodes:
            if node.op == "output":
                return tuple(self.value(arg) for arg in node.args[0])
            if node.op == "get_attr":
                self.values[node] = getattr(module, str(node.target), None)
            elif node.op == "call_function" and node in needed:
                self.values[node] = self.call(node, module_of_caller)
        return ()

    def value(self, arg: Any) -> Any:
        """An argument with its nodes replaced by what they stand for."""
        if isinstance(arg, Node):
            return self.values[arg]
        if isinstance(arg, list | tuple):
            return tuple(self.value(part) for part in arg)
        return arg

    def call(self, node: Node, module_of_caller: str) -> Any:
        """What a call stands for; operators on tensors are added to the list."""
        result = node.meta.get("val")
        if isinstance(result, int | torch.SymInt) and not isinstance(result, bool):
            return size_of(result, self.symbols)
        if isinstance(result, float | bool):
            return result
        target: Any = node.target
        path = module_path(node.meta.get("nn_module_stack")) or module_of_caller
        name = getattr(target, "_name", getattr(target, "__name__", str(target)))
        if name in _WRAPPERS:
            return self.inline(node, _WRAPPERS[name], path)
        if name == "getitem":
            return self.value(node.args[0])[node.args[1]]
        if not isinstance(target, torch._ops.OpOverload):
            raise ParframeError(
                "load",
                source_line(node.stack_trace, self.files) or path or node.name,
                f"{name} cannot stand in an operator graph",
                "rewrite that line without control flow that depends on tensors",
            )
        args = bind(target, node.args, node.kwargs, self.argument)
        outputs = self.outputs(f"%{len(self.tensors)}.{node.name}", result)
        self.operators.append(
            Operator(
                name=node.name,
                target=str(target),
                args=args,
                outputs=outputs,
                module=path,
                source=source_line(node.stack_trace, self.files),
            )
        )
        refs = tuple(Ref(output) for output in outputs)
        return refs[0] if isinstance(result, torch.Tensor) else refs

    def inline(self, node: Node, position: int, path: str) -> Sequence[Any]:
        """Read the submodule that a wrapper runs in place of the wrapper."""
        inner: Any = self.values[node.args[position]]  # type: ignore[index]
        places = [n for n in inner.graph.nodes if n.op == "placeholder"]
        for place, arg in zip(places, node.args[position + 1 :], strict=True):
            self.values[place] = self.value(arg)
        return self.run(inner, path)

    def argument(self, arg: Any) -> Arg:
        """An argument of a call in the form that graphs keep."""
        value = self.value(arg)
        if isinstance(value, torch.dtype):
            return dtype_name(value)
        if isinstance(value, tuple):
            return tuple(self.argument(part) for part in value)
        if isinstance(value, torch.SymInt):
            return size_of(value, self.symbols)
        if isinstance(value, torch.SymFloat | torch.SymBool | torch.Tensor | GraphModule):
            raise ParframeError(
                "load",
                str(value)[:60],
                "a number that depends on the inputs' sizes is used as one that does not",
                "rewrite that part of the model with tensors",
            )
        return value

    def outputs(self, name: str, result: Any) -> tuple[str, ...]:
        """Names for what an operator gives, their shapes noted."""
        values = (result,) if isinstance(result, torch.Tensor) else tuple(result or ())
        names = (name,) if len(values) == 1 else tuple(f"{name}.{i}" for i in range(len(values)))
        for own, value in zip(names, values, strict=True):
            self.tensors[own] = self.tensor(own, value)
        return names

    def tensor(self, name: str, value: torch.Tensor) -> Tensor:
        """A tensor's shape and dtype in the form that graphs keep."""
        shape = tuple(size_of(size, self.symbols) for size in value.shape)
        return Tensor(name, shape, dtype_name(value.dtype))


def _live(module: GraphModule) -> set[Node]:
    """The nodes that the graph's outputs need, and those that write into tensors."""
    needed: set[Node] = set()
    waiting = [node for node in module.graph.nodes if node.op == "output" or _writes(node)]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
