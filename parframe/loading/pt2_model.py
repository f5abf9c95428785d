"""Reader of the JSON in which a .pt2 archive of torch.export stores a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, Parameter, Ref, Tensor
from parframe.json_input import parse_json
from parframe.loading.exported_program import WRAPPERS
from parframe.loading.flat_graph import FlatGraph
from parframe.loading.source_location import clean_path, source_line
from parframe.loading.symbolic_sizes import parse
from parframe.ops.schema import bind_arguments, find_overload, is_dtype
from parframe.sizes import Size

_SYMBOL = re.compile(r"Symbol\('(\w+)'")
_IGNORED_OPERATORS = frozenset({"sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata"})

DTYPES: Mapping[int, str] = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
    29: "float8_e4m3fn", 30: "float8_e5m2",
}  # fmt: skip
"""The numbers of dtypes in the archive's schema."""


class ModelReader:
    """Reader of the JSON of one model into a flat graph; `read_constant` returns base64 text."""

    def __init__(self, model: Any, read_constant: Callable[[str], str]) -> None:
        self.read_constant = read_constant
        module = model["graph_module"]
        self.graph = module["graph"]
        self.signature = module["signature"]
        self.call = module["module_call_graph"][0]["signature"]
        self.symbols: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}

    def read(self) -> FlatGraph:
        """Read the whole model."""
        inputs, parameters = self.read_signature()
        results = self.read_graph(self.graph, self.values)
        for spec in self.signature["output_specs"]:
            if "user_output" not in spec:
                raise ParframeError(
                    "load",
                    next(iter(spec)),
                    "the model writes into its own tensors",
                    "return the new values instead",
                )
        leaves = iter([value.name if isinstance(value, Ref) else None for value in results])
        structure = parse_json(self.call["out_spec"], "load")[1]
        return FlatGraph(
            tuple(self.operators), self.tensors, inputs, parameters, _structure(structure, leaves)
        )

    def read_signature(self) -> tuple[dict[str, Input], dict[str, Parameter]]:
        """Return the model's inputs and parameters."""
        described = self.graph["tensor_values"]
        users = [s["user_input"]["arg"] for s in self.signature["input_specs"] if "user_input" in s]
        names = [arg["as_tensor"]["name"] for arg in users if "as_tensor" in arg]
        dims = {name: self.name_dims(described[name]) for name in names}
        inputs: dict[str, Input] = {}
        for name in names:
            tensor = self.tensor(name, described[name])
            inputs[name] = Input(name, tensor.shape, tensor.dtype, axes=dims[name])
            self.values[name] = Ref(name)
        parameters = {}
        for spec in self.signature["input_specs"]:
            kind, entry = next(iter(spec.items()))
            if kind == "user_input":
                continue
            parameter = self.parameter(kind, entry, described)
            parameters[parameter.name] = parameter
            self.values[entry["arg"]["name"]] = Ref(parameter.name)
        return inputs, parameters

    def name_dims(self, described: Any) -> tuple[str, ...]:
        """Name an input's dims; a symbol is named after the first dim whose size it is."""
        tokens = len(described["sizes"]) == 2 and DTYPES[described["dtype"]] in ("int64", "int32")
        names = []
        for dim, size in enumerate(described["sizes"]):
            match = _SYMBOL.fullmatch(size.get("as_expr", {}).get("expr_str", "").split(",")[0])
            if match is None:
                names.append("batch" if dim == 0 else "")
                continue
            usual = {0: "batch", 1: "sequence"} if tokens else {0: "batch"}
            name = usual.get(dim, match[1])
            if name in self.symbols.values():
                name = match[1]
            names.append(self.symbols.setdefault(match[1], name))
        return tuple(names)

    def parameter(self, kind: str, entry: Any, described: Any) -> Parameter:
        """Return a parameter, buffer or constant, with its contents if no checkpoint stores it."""
        if kind not in ("parameter", "buffer", "tensor_constant"):
            raise ParframeError(
                "load",
                kind,
                "inputs of this kind are not supported",
                "save a model without such an input",
            )
        name = entry[f"{kind}_name"]
        tensor = self.tensor(name, described[entry["arg"]["name"]])
        stored = kind == "parameter" or (kind == "buffer" and entry["persistent"])
        return Parameter(
            name,
            tensor.shape,
            tensor.dtype,
            kind="constant" if kind == "tensor_constant" else kind,
            data=None if stored else self.read_constant(name),
        )

    def read_graph(self, graph: Any, values: dict[str, Any]) -> list[Any]:
        """Read a graph's operators, and return its results."""
        for node in graph["nodes"]:
            self.read_node(node, graph, values)
        return [self.value(argument, graph, values) for argument in graph["outputs"]]

    def read_node(self, node: Any, graph: Any, values: dict[str, Any]) -> None:
        """Read one node; those that compute only sizes are left out."""
        target = str(node["target"])
        name = target.removeprefix("torch.ops.")
        if target.startswith(("_operator.", "math.", "torch.sym_")):
            return
        if name.split(".")[1] in _IGNORED_OPERATORS:
            return
        if name.startswith("higher_order."):
            self.read_wrapped(name.removeprefix("higher_order."), node, graph, values)
            return
        schema = find_overload(name)
        dtypes = {a.name for a in schema._schema.arguments if is_dtype(a)}
        arguments = {
            entry["name"]: self.value(entry["arg"], graph, values, entry["name"] in dtypes)
            for entry in node["inputs"]
        }
        outputs = self.name_results(node, graph, values)
        if outputs:
            stack = node["metadata"].get("nn_module_stack", "")
            self.operators.append(
                Operator(
                    name=outputs[0],
                    target=name,
                    args=bind_arguments(schema, (), arguments, _to_tuples),
                    outputs=outputs,
                    module=_module_path(stack),
                    source=source_line(node["metadata"].get("stack_trace"), frozenset()),
                )
            )

    def read_wrapped(self, name: str, node: Any, graph: Any, values: dict[str, Any]) -> None:
        """Read the graph that a wrapper runs, in place of the wrapper."""
        if name not in WRAPPERS:
            raise ParframeError(
                "load",
                name,
                "control flow is not supported in an operator graph",
                "save a model without control flow that depends on tensors",
            )
        arguments = [entry["arg"] for entry in node["inputs"]]
        inner = arguments[WRAPPERS[name]]["as_graph"]["graph"]
        passed = arguments[WRAPPERS[name] + 1 :]
        inner_values = {
            place["as_tensor"]["name"]: self.value(argument, graph, values)
            for place, argument in zip(inner["inputs"], passed, strict=True)
            if "as_tensor" in place
        }
        results = self.read_graph(inner, inner_values)
        names = [name for output in node["outputs"] for name in _names(output)]
        values.update(zip(names, results, strict=True))

    def name_results(self, node: Any, graph: Any, values: dict[str, Any]) -> tuple[str, ...]:
        """Name the results of an operator, and record their shapes."""
        names = []
        for result in (result for output in node["outputs"] for result in _names(output)):
            if result not in graph["tensor_values"]:
                return ()
            name = f"%{len(self.tensors)}.{result}"
            self.tensors[name] = self.tensor(name, graph["tensor_values"][result])
            values[result] = Ref(name)
            names.append(name)
        return tuple(names)

    def value(self, arg: Any, graph: Any, values: Mapping[str, Any], dtype: bool = False) -> Any:
        """Convert an argument to the form that graphs store."""
        kind, content = next(iter(arg.items()))
        if kind in ("as_none", "as_device", "as_layout", "as_memory_format"):
            return None
        if kind == "as_tensor":
            return values[content["name"]]
        if kind == "as_tensors":
            return tuple(values[part["name"]] for part in content)
        if kind == "as_optional_tensors":
            return tuple(self.value(part, graph, values) for part in content)
        if kind == "as_scalar_type" or dtype:
            return DTYPES[content]
        if kind == "as_sym_int":
            return self.size(content, graph)
        if kind == "as_sym_ints":
            return tuple(self.size(part, graph) for part in content)
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return content
        if kind in ("as_ints", "as_floats", "as_bools", "as_strings"):
            return tuple(content)
        raise ParframeError(
            "load",
            kind,
            "arguments of this kind are not supported in an operator graph",
            "rewrite that line of the model",
        )

    def size(self, content: Any, graph: Any) -> Size:
        """Convert a size, which may be symbolic."""
        if "as_int" in content:
            return int(content["as_int"])
        if "as_name" in content:
            return self.size(graph["sym_int_values"][content["as_name"]], graph)
        return parse(content["as_expr"]["expr_str"], self.symbols)

    def tensor(self, name: str, described: Any) -> Tensor:
        """Convert the shape and dtype of a tensor."""
        shape = tuple(self.size(size, self.graph) for size in described["sizes"])
        return Tensor(name, shape, DTYPES[described["dtype"]])


def _to_tuples(arg: Any) -> Arg:
    return tuple(_to_tuples(part) for part in arg) if isinstance(arg, list | tuple) else arg


def _names(output: Any) -> Sequence[str]:
    if "as_tensor" in output:
        return [output["as_tensor"]["name"]]
    return [part["name"] for part in output.get("as_tensors", ())]


def _module_path(stack: str) -> str:
    """Return the path of the innermost module in a stack written as ``key,path,class;...``."""
    parts = stack.split(";")[-1].split(",")
    return clean_path(parts[1]) if len(parts) == 3 else ""


def _structure(spec: Any, leaves: Any, depth: int = 40) -> Any:
    """Return a graph's outputs, given a tree of types and the names of its leaves."""
    if depth == 0:
        raise ValueError("outputs are nested too deep")
    if spec["type"] is None:
        return next(leaves)
    context = parse_json(spec["context"], "load") if spec["context"] else None
    parts = [_structure(part, leaves, depth - 1) for part in spec["children_spec"]]
    if spec["type"] in ("builtins.tuple", "builtins.list"):
        return tuple(parts)
    keys = context if isinstance(context, list) else None
    if keys is None or len(keys) != len(parts):
        raise ValueError(f"outputs in a {spec['type']}")
    named = {str(key): part for key, part in zip(keys, parts, strict=True)}
    if spec["type"] == "builtins.dict":
        return named
    return {"$class": str(spec["type"]).rpartition(".")[2], **named}
