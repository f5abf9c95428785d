"""Conversion of an exported program of PyTorch to a flat graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, Parameter, Ref, Tensor
from parframe.loading.buffer_data import encode_tensor
from parframe.loading.flat_graph import FlatGraph
from parframe.loading.source_location import module_path, source_line
from parframe.loading.symbolic_sizes import size_of
from parframe.ops.schema import bind_arguments, dtype_name

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}

WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Operators that run a submodule, and its position among their arguments."""


class MissingContentError(ParframeError):
    """Constant of a model on the meta device, whose contents are not known."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "load",
            name,
            "the contents of a tensor that the model computes at construction are not known",
            "register it as a buffer that the model's _init_weights fills",
        )


@attrs.frozen
class ModelFacts:
    """Facts of a model that its exported program does not contain."""

    dim_names: Mapping[str, Sequence[str]]  # the names of the dims of each input
    data: Mapping[str, torch.Tensor]  # the tensors that no checkpoint stores, by name
    aliases: Mapping[str, tuple[str, ...]]  # the other names of the first name of a tied weight
    files: frozenset[str]  # the files of the model's own code


def convert_exported(exported: ExportedProgram, facts: ModelFacts) -> FlatGraph:
    """Convert an exported program to a flat graph.

    Raises
    ------
    ParframeError
        If an operator or a size has no counterpart.
    """
    reader = _Reader(_symbol_names(exported, facts.dim_names), facts.files)
    inputs, parameters = _read_signature(exported, facts, reader)
    for spec in exported.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise ParframeError(
                "load",
                str(spec.target),
                "the model writes into this tensor in its forward",
                "return the new value instead",
            )
    results = reader.read(exported.graph_module)
    leaves = [leaf.name if isinstance(leaf, Ref) else None for leaf in results]
    returned = torch.utils._pytree.tree_unflatten(leaves, exported.call_spec.out_spec)
    return FlatGraph(
        operators=tuple(reader.operators),
        tensors=reader.tensors,
        inputs=inputs,
        parameters=parameters,
        outputs=_output_structure(returned),
    )


def _output_structure(value: Any) -> Any:
    """Convert a return value, with names in place of tensors, to a graph's outputs."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        if fields:
            return _named_fields(value, zip(fields, value, strict=True))
        return tuple(_output_structure(part) for part in value)
    if attrs.has(type(value)) or hasattr(value, "__dataclass_fields__"):
        items = value.items() if hasattr(value, "items") else vars(value).items()
        return _named_fields(value, items)
    if isinstance(value, Mapping):
        return {str(key): _output_structure(part) for key, part in value.items()}
    raise ParframeError(
        "load",
        type(value).__name__,
        "the model returns something other than tensors, tuples, lists and dicts",
        "wrap the model in a module that returns one of those",
    )


def _named_fields(value: Any, items: Any) -> dict[str, Any]:
    parts = {str(key): _output_structure(part) for key, part in items if part is not None}
    return {"$class": type(value).__name__, **parts}


def _read_signature(
    exported: ExportedProgram, facts: ModelFacts, reader: _Reader
) -> tuple[dict[str, Input], dict[str, Parameter]]:
    """Return the program's inputs and weights, and give the reader their names."""
    inputs: dict[str, Input] = {}
    parameters: dict[str, Parameter] = {}
    first_names = {name: first for first, names in facts.aliases.items() for name in names}
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True):
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            reader.values[node] = value
        elif spec.kind is InputKind.USER_INPUT:
            tensor = reader.tensor(node.name, value)
            dims = tuple(facts.dim_names.get(node.name, ("",) * len(tensor.shape)))
            inputs[node.name] = Input(node.name, tensor.shape, tensor.dtype, axes=dims)
            reader.values[node] = Ref(node.name)
        elif spec.kind in _KINDS:
            name = first_names.get(str(spec.target), str(spec.target))
            parameters[name] = _parameter(reader.tensor(name, value), spec, exported, facts)
            reader.values[node] = Ref(name)
        else:
            raise ParframeError(
                "load",
                node.name,
                f"inputs of kind {spec.kind.name} are not supported",
                "load a module without such an input",
            )
    return inputs, parameters


def _parameter(
    tensor: Tensor, spec: Any, exported: ExportedProgram, facts: ModelFacts
) -> Parameter:
    """Return a weight, with its contents where no checkpoint stores them."""
    name = tensor.name
    stored = spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent)
    data = None
    if not stored:
        content = facts.data.get(name, exported.constants.get(str(spec.target)))
        if not isinstance(content, torch.Tensor) or content.is_meta:
            raise MissingContentError(name)
        data = encode_tensor(content)
    return Parameter(
        name,
        tensor.shape,
        tensor.dtype,
        kind=_KINDS[spec.kind],
        data=data,
        aliases=facts.aliases.get(name, ()),
    )


def _symbol_names(
    exported: ExportedProgram, dim_names: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the name of each symbol of PyTorch: that of the input dim whose size it is."""
    names: dict[str, str] = {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for dim, size in zip(dim_names.get(node.name, ()), value.shape, strict=False):
            if dim and isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                names.setdefault(str(size.node.expr), dim)
    return names


class _Reader:
    """Reader of fx graphs and their wrapped submodules into one list of operators."""

    def __init__(self, symbols: Mapping[str, str], files: frozenset[str]) -> None:
        self.symbols = symbols
        self.files = files
        self.values: dict[Node, Any] = {}
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}

    def read(self, module: GraphModule, module_of_caller: str = "") -> Sequence[Any]:
        """Read every node that is needed, and return the graph's results."""
        needed = _needed_nodes(module)
        for node in module.graph.nodes:
            if node.op == "output":
                return tuple(self.value(arg) for arg in node.args[0])
            if node.op == "get_attr":
                self.values[node] = getattr(module, str(node.target), None)
            elif node.op == "call_function" and node in needed:
                self.values[node] = self.read_call(node, module_of_caller)
        return ()

    def value(self, arg: Any) -> Any:
        """Return an argument with its nodes replaced by their values."""
        if isinstance(arg, Node):
            return self.values[arg]
        if isinstance(arg, list | tuple):
            return tuple(self.value(part) for part in arg)
        return arg

    def read_call(self, node: Node, module_of_caller: str) -> Any:
        """Return the result of a call, and add it to the list if it computes tensors."""
        result = node.meta.get("val")
        if isinstance(result, int | torch.SymInt) and not isinstance(result, bool):
            return size_of(result, self.symbols)
        if isinstance(result, float | bool):
            return result
        target: Any = node.target
        path = module_path(node.meta.get("nn_module_stack")) or module_of_caller
        name = getattr(target, "_name", getattr(target, "__name__", str(target)))
        if name in WRAPPERS:
            return self.read_wrapped(node, WRAPPERS[name], path)
        if name == "getitem":
            return self.value(node.args[0])[node.args[1]]
        if not isinstance(target, torch._ops.OpOverload):
            raise ParframeError(
                "load",
                source_line(node.stack_trace, self.files) or path or node.name,
                f"{name} is not supported in an operator graph",
                "rewrite that line without control flow that depends on tensors",
            )
        args = bind_arguments(target, node.args, node.kwargs, self.argument)
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

    def read_wrapped(self, node: Node, position: int, path: str) -> Sequence[Any]:
        """Read the submodule that a wrapper runs, in place of the wrapper."""
        inner: Any = self.values[node.args[position]]  # type: ignore[index]
        placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
        for placeholder, arg in zip(placeholders, node.args[position + 1 :], strict=True):
            self.values[placeholder] = self.value(arg)
        return self.read(inner, path)

    def argument(self, arg: Any) -> Arg:
        """Convert an argument of a call to the form that graphs store."""
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
                "an argument is computed from the inputs' sizes, but must be a constant",
                "compute that part of the model with tensors",
            )
        return value

    def outputs(self, name: str, result: Any) -> tuple[str, ...]:
        """Name the results of an operator, and record their shapes."""
        values = (result,) if isinstance(result, torch.Tensor) else tuple(result or ())
        names = (name,) if len(values) == 1 else tuple(f"{name}.{i}" for i in range(len(values)))
        for each, value in zip(names, values, strict=True):
            self.tensors[each] = self.tensor(each, value)
        return names

    def tensor(self, name: str, value: torch.Tensor) -> Tensor:
        """Convert a tensor's shape and dtype to the form that graphs store."""
        shape = tuple(size_of(size, self.symbols) for size in value.shape)
        return Tensor(name, shape, dtype_name(value.dtype))


def _needed_nodes(module: GraphModule) -> set[Node]:
    """Return the nodes that the graph's outputs need, and those that write into tensors."""
    needed: set[Node] = set()
    waiting = [node for node in module.graph.nodes if node.op == "output" or _is_in_place(node)]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def _is_in_place(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
