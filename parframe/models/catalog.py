"""Catalog of shipped models, with lookup by any usual spelling of a name."""

from __future__ import annotations

import difflib
import gzip
import json
import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import attrs

from parframe import graph_json
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph

_SUFFIXES = {
    "fp8": "fp8", "f8": "fp8", "w8a8fp8": "fp8",
    "int8": "int8", "w8a8": "int8", "w8a16": "int8", "8bit": "int8",
    "int4": "int4", "awq": "int4", "gptq": "int4", "w4a16": "int4", "4bit": "int4", "q4": "int4",
    "fp4": "fp4", "nvfp4": "fp4", "mxfp4": "fp4",
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16",
}  # fmt: skip
"""Words of a name that give the dtype of the weights."""

_IGNORED = {"instruct", "chat", "base", "it", "hf", "meta", "thinking", "dynamic", "block", "kv"}
"""Words of a name that are ignored: the model has the same shape with and without them."""

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+[a-z]*)*")
_DATE = re.compile(r"(?:\d{4}|20\d{6})$")


@attrs.frozen
class ShippedModel:
    """A model that ships with parframe, with the stem of its file names.

    The dtype of its weights (``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``) is that of
    the name that it was found by, or as published.
    """

    name: str
    file: str
    weights: str
    note: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """Configuration, as in a config.json."""
        return _config(self.file)

    def graph(self) -> OperatorGraph:
        """Return its operator graph, which has equal layers once."""
        return _graph(self.file)


@cache
def shipped_models() -> tuple[ShippedModel, ...]:
    """Return all shipped models in the order of the catalog."""
    return tuple(
        ShippedModel(
            entry["name"],
            entry["file"],
            entry.get("weights") or _DTYPES[_config(entry["file"])["dtype"]],
            entry.get("note", ""),
        )
        for entry in _catalog_entries()
    )


def lookup_model(name: str) -> ShippedModel | None:
    """Return the shipped model of a name, or None.

    Owners (``openai/``), case, signs between words, dates and words such as ``Instruct`` are
    ignored. A quantization suffix (``FP8``, ``AWQ``) gives the dtype of the weights.
    """
    key, dtype = _key(name)
    model = _keys().get(key)
    if model is None:
        return None
    return attrs.evolve(model, weights=dtype) if dtype else model


def find_model(name: str) -> ShippedModel:
    """Return the shipped model of a name.

    Raises
    ------
    ParframeError
        Of kind ``load``, with the nearest names, if no shipped model has this name.
    """
    model = lookup_model(name)
    if model is not None:
        return model
    keys = _keys()
    near = difflib.get_close_matches(_key(name)[0], keys, n=3, cutoff=0.5)
    names = list(dict.fromkeys(keys[key].name for key in near))
    raise ParframeError(
        "load",
        f"model {name[:80]!r}",
        "is not a shipped model" + (f" (did you mean {' or '.join(names)}?)" if names else ""),
        "use a name that `parframe fit` lists, or the path of a model folder or a config.json",
    )


def _key(name: str) -> tuple[str, str]:
    """Return the normalized name of the model, and the dtype in the name (or empty)."""
    words = _WORD.findall(name.casefold().rstrip("/").rsplit("/", 1)[-1])
    dtype = next((_SUFFIXES[word] for word in reversed(words) if word in _SUFFIXES), "")
    kept = [
        word
        for place, word in enumerate(words)
        if word not in _SUFFIXES and word not in _IGNORED and not (place and _DATE.match(word))
    ]
    return "".join(kept), dtype


@cache
def _keys() -> dict[str, ShippedModel]:
    """Return the shipped models by every spelling of their names, normalized by `_key`."""
    by_key: dict[str, ShippedModel] = {}
    for model, entry in zip(shipped_models(), _catalog_entries(), strict=True):
        for name in (entry["name"], entry["file"], *entry.get("names", ())):
            by_key[_key(name)[0]] = model
    return by_key


@cache
def _catalog_entries() -> tuple[dict[str, Any], ...]:
    text = files(__package__).joinpath("catalog.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["model"])


def _config(file: str) -> dict[str, Any]:
    text = files(__package__).joinpath("configs", f"{file}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _graph(file: str) -> OperatorGraph:
    packed = files(__package__).joinpath("graphs", f"{file}.json.gz").read_bytes()
    return graph_json.parse_graph(gzip.decompress(packed).decode("utf-8"))
