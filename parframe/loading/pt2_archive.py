"""Load a .pt2 that torch.export saved: its JSON is read here, and nothing in it is unpickled."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Arg, Input, Operator, OperatorGraph, Parameter, Ref, Tensor
from parframe.json_input import parse_json
from parframe.loading.exported_program import encode
from parframe.loading.flat_graph import Program
from parframe.loading.in_place import AliasedWriteError
from parframe.loading.module import folded
from parframe.loading.simplify import simplify
from parframe.loading.source_location import clean_path, source_line
from parframe.loading.symbolic_sizes import parse
from parframe.ops.schema import bind, is_dtype, overload
from parframe.sizes import Size

_LARGEST = 1 << 28
_MOST_SQUEEZED = 100
_MEMBER = re.compile(r"^[^/]+/models/[^/]+\.json$")
_SYMBOL = re.compile(r"Symbol\('(\w+)'")
_NO_OPERATOR = frozenset({"sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata"})
_WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}

DTYPES: Mapping[int, str] = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
    29: "float8_e4m3fn", 30: "float8_e5m2",
}  # fmt: skip
"""The numbers of dtypes in the archive's schema."""


def load_archive(path: Path) -> OperatorGraph:
    """Load a saved export without running anything in it.

    Parameters
    ----------
    path
        The ``.pt2`` file. Its first axis is taken for the batch where it may vary, the second
        of token ids for the sequence; its weights and example inputs are not read.

    Raises
    ------
    ParframeError
        Of kind ``load`` if it is not one, or holds what can only be read by unpickling.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            model = _model(archive, path)
            program = simplify(_Archive(archive, model).program())
    except (OSError, zipfile.BadZipFile) as error:
        raise _refused(path, f"cannot be read ({error})") from error
    except AliasedWriteError as error:
        raise ParframeError(
            "load",
            str(path),
            f"{error} writes into a tensor that is used elsewhere",
            "save exported.run_decompositions({}) instead",
        ) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise _refused(path, f"is not what torch.export writes ({reason})") from error
    return folded(program, path.name)


def _refused(path: Path, what: str) -> ParframeError:
    return ParframeError(
        "load", str(path), what, "save it again with torch.export.save of torch 2.11 or newer"
    )


def _model(archive: zipfile.ZipFile, path: Path) -> Any:
    """The JSON of the archive's one model."""
    found = [info for info in archive.infolist() if _MEMBER.match(info.filename)]
    if len(found) != 1:
        raise _refused(path, f"has {len(found)} models in JSON, not one")
    return parse_json(_member(archive, found[0].filename).decode("utf-8"), "load")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > _LARGEST:
        raise ParframeError("load", name, f"larger than {_LARGEST} bytes", "save a smaller model")
    if info.file_size > _MOST_SQUEEZED * max(info.compress_size, 1 << 10):
        raise ParframeError(
            "load", name, "is compressed beyond reason", "save it with torch.export.save"
        )
    return archive.read(name)


class _Archive:
    """Reads the JSON of one model into a program."""

    def __init__(self, archive: zipfile.ZipFile, model: Any) -> None:
        self.archive = archive
        module = model["graph_module"]
        self.graph = module["graph"]
        self.signature = module["signature"]
        self.call = module["module_call_graph"][0]["signature"]
        self.symbols: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}

    def program(self) -> Program:
        inputs, parameters = self.signature_values()
        results = self.run(self.graph, self.values)
        for spec in self.signature["output_specs"]:
            if "user_output" not in spec:
                raise ParframeError(
                    "load", next(iter(spec)), "the model writes into its own tensors",
                    "make it return the new values instead",
                )  # fmt: skip
        leaves = iter([value.name if isinstance(value, Ref) else None for value in results])
        structure = parse_json(self.call["out_spec"], "load")[1]
        return Program(
            tuple(self.operators), self.tensors, inputs, parameters, _structure(structure, leaves)
        )

    def signature_values(self) -> tuple[dict[str, Input], dict[str, Parameter]]:
        """The model's inputs and parameters."""
        described = self.graph["tensor_values"]
        users = [s["user_input"]["arg"] for s in self.signature["input_specs"] if "user_input" in s]
        names = [arg["as_tensor"]["name"] for arg in users if "as_tensor" in arg]
        axes = {name: self.axes(described[name]) for name in names}
        inputs: dict[str, Input] = {}
        for name in names:
            tensor = self.tensor(name, described[name])
            inputs[name] = Input(name, tensor.shape, tensor.dtype, axes=axes[name])
            self.values[name] = Ref(name)
        parameters = {}
        for spec in self.signature["input_specs"]:
            kind, entry = next(iter(spec.items()))
            if kind == "user_input":
                continue
            parameter = self.parameter(kind, entry, described)
            if parameter.name in inputs:
                raise ParframeError(
                    "load", parameter.name, "a weight and an input share it", "rename one"
                )
            parameters[parameter.name] = parameter
            self.values[entry["arg"]["name"]] = Ref(parameter.name)
        return inputs, parameters

    def axes(self, described: Any) -> tuple[str, ...]:
        """Names of an input's axes; a symbol is named after the first axis it stands for."""
        tokens = len(described["sizes"]) == 2 and DTYPES[described["dtype"]] in ("int64", "int32")
        names = []
        for axis, size in enumerate(described["sizes"]):
            found = _SYMBOL.fullmatch(size.get("as_expr", {}).get("expr_str", "").split(",")[0])
            if found is None:
                names.append("batch" if axis == 0 else "")
                continue
            usual = {0: "batch", 1: "sequence"} if tokens else {0: "batch"}
            wish = usual.get(axis, found[1])
            if wish in self.symbols.values():
                wish = found[1]
            names.append(self.symbols.setdefault(found[1], wish))
        return tuple(names)

    def parameter(self, kind: str, entry: Any, described: Any) -> Parameter:
        """A parameter, buffer or constant; the contents of those that no checkpoint has."""
        keys = {
            "parameter": "parameter_name",
            "buffer": "buffer_name",
            "tensor_constant": "tensor_constant_name",
        }
        if kind not in keys:
            raise ParframeError("load", kind, "an input of this kind", "save a model without it")
        name = entry[keys[kind]]
        tensor = self.tensor(name, described[entry["arg"]["name"]])
        stored = kind == "parameter" or (kind == "buffer" and entry["persistent"])
        return Parameter(
            name,
            tensor.shape,
            tensor.dtype,
            kind="constant" if kind == "tensor_constant" else kind,
            data=None if stored else self.constant(name),
        )

    def constant(self, name: str) -> str:
        """The contents of a tensor that the archive keeps as plain bytes."""
        root = self.archive.namelist()[0].split("/")[0]
        folder = f"{root}/data/constants"
        config = next(n for n in self.archive.namelist() if re.match(
            rf"{re.escape(folder)}/[^/]+_config\.json$", n))  # fmt: skip
        entry = parse_json(_member(self.archive, config).decode("utf-8"), "load")["config"][name]
        if entry["use_pickle"]:
            raise ParframeError(
                "load", name, "the archive keeps it as a pickle, which is never read",
                "save a model without constants that are not plain tensors",
            )  # fmt: skip
        meta = entry["tensor_meta"]
        kind = getattr(torch, DTYPES[meta["dtype"]])
        sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
        content = bytearray(_member(self.archive, f"{folder}/{entry['path_name']}"))
        if not content:
            return ""
        flat = torch.frombuffer(content, dtype=kind)
        return encode(flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]))

    def run(self, graph: Any, values: dict[str, Any]) -> list[Any]:
        """Read a graph's operators; what it returns."""
        for node in graph["nodes"]:
            self.node(node, graph, values)
        return [self.value(argument, graph, values) for argument in graph["outputs"]]

    def node(self, node: Any, graph: Any, values: dict[str, Any]) -> None:
        target = str(node["target"])
        name = target.removeprefix("torch.ops.")
        if target.startswith(("_operator.", "math.", "torch.sym_")):
            return
        if name.split(".")[1] in _NO_OPERATOR:
            return
        if name.startswith("higher_order."):
            self.inline(name.removeprefix("higher_order."), node, graph, values)
            return
        schema = overload(name)
        dtypes = {a.name for a in schema._schema.arguments if is_dtype(a)}
        given = {
            entry["name"]: self.value(entry["arg"], graph, values, entry["name"] in dtypes)
            for entry in node["inputs"]
        }
        outputs = self.results(node, graph, values)
        if outputs:
            stack = node["metadata"].get("nn_module_stack", "")
            self.operators.append(
                Operator(
                    name=outputs[0],
                    target=name,
                    args=bind(schema, (), given, _plain),
                    outputs=outputs,
                    module=_path(stack),
                    source=source_line(node["metadata"].get("stack_trace"), frozenset()),
                )
            )

    def inline(self, name: str, node: Any, graph: Any, values: dict[str, Any]) -> None:
        """Read the graph that a wrapper runs in place of the wrapper."""
        if name not in _WRAPPERS:
            raise ParframeError(
                "load", name, "control flow cannot stand in an operator graph", "avoid it"
            )
        arguments = [entry["arg"] for entry in node["inputs"]]
        inner = arguments[_WRAPPERS[name]]["as_graph"]["graph"]
        given = arguments[_WRAPPERS[name] + 1 :]
        own = {
            place["as_tensor"]["name"]: self.value(argument, graph, values)
            for place, argument in zip(inner["inputs"], given, strict=True)
            if "as_tensor" in place
        }
        results = self.run(inner, own)
        places = [place for output in node["outputs"] for place in _names(output)]
        values.update(zip(places, results, strict=True))

    def results(self, node: Any, graph: Any, values: dict[str, Any]) -> tuple[str, ...]:
        """Names for what an operator gives."""
        names = []
        for place in (place for output in node["outputs"] for place in _names(output)):
            if place not in graph["tensor_values"]:
                return ()
            own = f"%{len(self.tensors)}.{place}"
            self.tensors[own] = self.tensor(own, graph["tensor_values"][place])
            values[place] = Ref(own)
            names.append(own)
        return tuple(names)

    def value(self, arg: Any, graph: Any, values: Mapping[str, Any], dtype: bool = False) -> Any:
        """An argument in the form that graphs keep."""
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
            "load", kind, "an argument of a kind that graphs do not have", "rewrite that line"
        )

    def size(self, content: Any, graph: Any) -> Size:
        if "as_int" in content:
            return int(content["as_int"])
        if "as_name" in content:
            return self.size(graph["sym_int_values"][content["as_name"]], graph)
        return parse(content["as_expr"]["expr_str"], self.symbols)

    def tensor(self, name: str, described: Any) -> Tensor:
        shape = tuple(self.size(size, self.graph) for size in described["sizes"])
        return Tensor(name, shape, DTYPES[described["dtype"]])


def _plain(arg: Any) -> Arg:
    return tuple(_plain(part) for part in arg) if isinstance(arg, list | tuple) else arg


def _names(output: Any) -> Sequence[str]:
    if "as_tensor" in output:
        return [output["as_tensor"]["name"]]
    return [part["name"] for part in output.get("as_tensors", ())]


def _path(stack: str) -> str:
    """The innermost module's path in a stack written as ``key,path,class;...``."""
    parts = stack.split(";")[-1].split(",")
    return clean_path(parts[1]) if len(parts) == 3 else ""


def _structure(spec: Any, leaves: Any, depth: int = 40) -> Any:
    """A graph's outputs from a tree of types and the names of its leaves."""
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
