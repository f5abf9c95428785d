"""The table of the keys of a spec, and the walk that reads a parsed spec by it."""

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
"""The types of numbers that a spec may name."""

_CODE_KEYS = ("auto_map", "trust_remote_code")


@attrs.frozen
class Key:
    """A key of a spec.

    Parameters
    ----------
    expected : str
        What its value must be, as the end of "give ...".
    meaning : str
        What it says.
    read : callable
        The reader of its value.
    """

    expected: str
    meaning: str
    read: Read = attrs.field(repr=False)


@attrs.frozen
class DemoModel:
    """A model made on the spot with seeded random weights, so that nothing is downloaded.

    Parameters
    ----------
    config : mapping of str to object
        What a transformers `config.json` would hold.
    """

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
        '"demo"', "a model made on the spot, with random weights", values.one_of("demo")
    ),
    "model.config": Key(
        "a table as in a transformers config.json, with its model_type",
        "the configuration of the demo model",
        values.table,
    ),
    "parallel": Key(
        'a composite such as "PP4TP4DP2", or "" for none',
        "the strategies with their degrees; their order is that of the mesh axes",
        values.text,
    ),
    "devices": Key(_DEGREE, "the number of devices, checked against the mesh", values.degree),
    "mesh.*": Key(_DEGREE, "the degree of a mesh axis, where no composite is given", values.degree),
    "shares.*": Key(
        "a list of a whole number for each device along the axis, such as [3, 1]",
        "in which ratio unequal devices get what is split over a mesh axis",
        values.shares,
    ),
    "splits.*": Key(
        'a list of mesh axes, such as ["dp", "tp"]',
        "the axes that split the dimensions of a name, whatever the strategies say",
        values.words,
    ),
    "stages": Key(
        'a list of tables such as { tp = 4, layers = "0-11" } that have all layers in order',
        "the layers of each pipeline stage, and degrees that differ from stage to stage",
        read_stages,
    ),
    "strategies.*": Key(
        'a table of options, or of a declaration such as splits = ["heads"]',
        "what a strategy is set to, by its code in small letters",
        values.table,
    ),
    "plugins": Key(
        "a list of names of installed distributions",
        "distributions whose plugins are imported",
        values.words,
    ),
    "on_missing_rule": Key(
        '"error" or "replicate"',
        "what to do with an operator that has no rule",
        values.one_of("error", "replicate"),
    ),
    "output": Key(_PATH, "the folder that the plan is written to", values.path_inside),
    "dtype": Key(
        f"one of {', '.join(DTYPES)}", "the type of weights and cache", values.one_of(*DTYPES)
    ),
    "batch": Key(_COUNT, "the batch for which memory is told", values.count),
    "sequence": Key(_COUNT, "the length of sequence for which memory is told", values.count),
    "memory.budget": Key(
        'an amount of memory, such as "80GB" or "80GiB", or a number of bytes',
        "what a device may need at most",
        values.size_in_bytes,
    ),
    "verify.execute": Key(
        "true or false",
        "whether the proof is run; false for a model too large to be executed here",
        values.truth,
    ),
    "verify.batch": Key(_COUNT, "the batch that the proof runs", values.count),
    "verify.sequence": Key(_COUNT, "the length of sequence that the proof runs", values.count),
    "verify.seed": Key(
        "a whole number from 0", "the seed of random weights and inputs", values.whole(0, 2**63 - 1)
    ),
    "run.prompts": Key(
        "a list of texts, or of lists of token ids",
        "what the model continues, in real processes, once the plan is proved",
        values.prompts,
    ),
    "run.max_new_tokens": Key(_COUNT, "how many tokens each prompt gets at most", values.count),
    "run.executor": Key(
        'the name of an executor, such as "local"', "what starts the devices", values.text
    ),
    "run.device": Key('"cpu" or "cuda"', "what the devices are", values.one_of("cpu", "cuda")),
    "run.cached": Key(
        "true or false", "whether keys and values are kept from token to token", values.truth
    ),
    "run.compiled": Key("true or false", "whether the step of one token is compiled", values.truth),
}
"""Every key of a spec; `*` is a name that the user chooses."""


def read_document(document: Mapping[str, Any], folder: Path, origin: Origin) -> dict[str, Any]:
    """Read a parsed spec by the table of keys.

    Parameters
    ----------
    document : mapping of str to object
        The parsed spec.
    folder : Path
        The folder of the spec.
    origin : Origin
        Where the keys stand.

    Returns
    -------
    dict of str to object
        What each key says, by its dotted path.

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
                "give a name of your own"
                if legal == {"*"}
                else f"use one of: {', '.join(sorted(legal))}",
            )
        else:
            try:
                yield path, key.read(value, folder)
            except ValueError as fault:
                raise _illegal(origin, path, str(fault), key.expected) from fault


def _refuse_code(document: Mapping[str, Any], origin: Origin) -> None:
    """Refuse values that name Python code, wherever they stand, and tables nested too deep."""
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
