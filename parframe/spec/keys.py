"""Keys of a spec, and the reader of a parsed spec."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import MAX_DEVICES
from parframe.spec import value_readers as values
from parframe.spec.stage_list import read_stages
from parframe.spec.toml_text import MAX_DEPTH, Origin
from parframe.spec.value_readers import Read

DTYPES = ("float64", "float32", "bfloat16", "float16")
"""Data types that a spec may name."""

_CODE_KEYS = ("auto_map", "trust_remote_code")


@attrs.frozen
class Key:
    """Key of a spec: its legal values (the end of a hint "give ..."), meaning, and reader."""

    expected: str
    meaning: str
    read: Read = attrs.field(repr=False)


@attrs.frozen
class DemoModel:
    """Model of a transformers `config.json` with random weights; nothing is downloaded."""

    config: Mapping[str, Any]


_PATH = "a relative path inside the folder of the spec"
_COUNT = "a whole number from 1"
_DEGREE = f"a whole number from 1 to {MAX_DEVICES}"

KEYS: dict[str, Key] = {
    "model": Key(
        f'{_PATH} (any other model is given on the command line), or a table with kind = "demo"',
        "the model: a Hugging Face folder, a config.json, a .pt2 or a graph.json",
        values.path_inside,
    ),
    "model.kind": Key(
        '"demo"',
        "a model that is built from its configuration, with random weights",
        values.one_of("demo"),
    ),
    "model.config": Key(
        "a table as in a transformers config.json, with its model_type",
        "the configuration of the demo model",
        values.table,
    ),
    "parallel": Key(
        'a composite such as "PP4TP4DP2", or "" for none',
        "strategies with their degrees, in the order of the mesh axes",
        values.text,
    ),
    "devices": Key(_DEGREE, "number of devices, checked against the mesh", values.degree),
    "mesh.*": Key(_DEGREE, "degree of a mesh axis, if no composite is given", values.degree),
    "shares.*": Key(
        "a list of a whole number for each device along the axis, such as [3, 1]",
        "ratio in which unequal devices along a mesh axis get parts",
        values.shares,
    ),
    "splits.*": Key(
        'a list of mesh axes, such as ["dp", "tp"]',
        "mesh axes that split the dimensions of a name, in place of those of the strategies",
        values.words,
    ),
    "stages": Key(
        'a list of tables such as { tp = 4, layers = "0-11" } with all layers in order',
        "layers of each pipeline stage, and degrees that differ from stage to stage",
        read_stages,
    ),
    "strategies.*": Key(
        'a table of options, or of a declaration such as splits = ["heads"]',
        "options of a strategy, under its code in lower case",
        values.table,
    ),
    "plugins": Key(
        "a list of names of installed distributions",
        "distributions whose plugins are imported",
        values.words,
    ),
    "on_missing_rule": Key(
        '"error" or "replicate"',
        "action for an operator that has no rule",
        values.one_of("error", "replicate"),
    ),
    "output": Key(_PATH, "folder that the plan is written to", values.path_inside),
    "dtype": Key(
        f"one of {', '.join(DTYPES)}", "data type of weights and KV cache", values.one_of(*DTYPES)
    ),
    "batch": Key(_COUNT, "batch size for the memory report", values.count),
    "sequence": Key(_COUNT, "sequence length for the memory report", values.count),
    "memory.budget": Key(
        'an amount of memory, such as "80GB" or "80GiB", or a number of bytes',
        "memory that a device may use",
        values.size_in_bytes,
    ),
    "verify.execute": Key(
        "true or false",
        "whether the plan is verified by execution; false for a model too large for this machine",
        values.truth,
    ),
    "verify.batch": Key(_COUNT, "batch size of the verification", values.count),
    "verify.sequence": Key(_COUNT, "sequence length of the verification", values.count),
    "verify.seed": Key(
        "a whole number from 0", "seed of random weights and inputs", values.whole(0, 2**63 - 1)
    ),
    "run.prompts": Key(
        "a list of texts, or of lists of token ids",
        "prompts that the model continues in real processes, after verification",
        values.prompts,
    ),
    "run.max_new_tokens": Key(_COUNT, "maximum number of new tokens for each prompt", values.count),
    "run.executor": Key(
        'the name of an executor, such as "local"',
        "executor that starts the processes",
        values.text,
    ),
    "run.device": Key('"cpu" or "cuda"', "type of the devices", values.one_of("cpu", "cuda")),
    "run.cached": Key("true or false", "whether keys and values are cached", values.truth),
    "run.compiled": Key("true or false", "whether the decode step is compiled", values.truth),
}
"""All keys of a spec; `*` is a name that the user chooses."""


def read_document(document: Mapping[str, Any], folder: Path, origin: Origin) -> dict[str, Any]:
    """Return the values of the keys of a parsed spec, by dotted path.

    Raises
    ------
    ParframeError
        Of kind `spec`, at the first key that is unknown or whose value is not legal.
    """
    _refuse_code(document, origin)
    return dict(_read_table("", document, folder, origin))


def _read_table(
    prefix: str, table: Mapping[str, Any], folder: Path, origin: Origin
) -> Iterator[tuple[str, Any]]:
    legal = {
        path.removeprefix(prefix).partition(".")[0] for path in KEYS if path.startswith(prefix)
    }
    for name, value in table.items():
        path = prefix + name
        is_table = any(key.startswith(f"{path}.") for key in KEYS)
        key = KEYS.get(path) or (KEYS.get(f"{prefix}*") if prefix else None)
        if is_table and (isinstance(value, dict) or key is None):
            if not isinstance(value, dict):
                raise _illegal(origin, path, values.wrong(value), f"a table: [{path}]")
            yield from _read_table(f"{path}.", value, folder, origin)
        elif key is None or "*" in name:
            raise ParframeError(
                "spec",
                origin.where(path),
                f"unknown key{did_you_mean(name, legal - {'*'})}",
                "choose a name" if legal == {"*"} else f"use one of: {', '.join(sorted(legal))}",
            )
        else:
            try:
                yield path, key.read(value, folder)
            except ValueError as fault:
                raise _illegal(origin, path, str(fault), key.expected) from fault


def _refuse_code(document: Mapping[str, Any], origin: Origin) -> None:
    """Refuse values that name Python code anywhere, and tables that are nested too deep."""
    waiting: list[tuple[str, Any, int]] = [(name, value, 1) for name, value in document.items()]
    while waiting:
        path, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _illegal(origin, path, "is nested too deep", f"at most {MAX_DEPTH} tables")
        if isinstance(value, dict):
            waiting += [(f"{path}.{name}", item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(path, item, depth + 1) for item in value]
        elif isinstance(value, str) and values.is_import(value):
            raise _illegal(
                origin,
                path,
                f"{values.wrong(value)}, which names code to be imported",
                "plain data; code comes from installed plugins only",
            )
        if path.rpartition(".")[2] in _CODE_KEYS and path.startswith("model."):
            raise _illegal(origin, path, "asks to run code of the model", "a config without it")


def _illegal(origin: Origin, path: str, what: str, expected: str) -> ParframeError:
    return ParframeError("spec", origin.where(path), what, f"give {expected}")
