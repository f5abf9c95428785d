"""The models that ship, found by any usual spelling of their names."""

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
"""Words of a name that tell the dtype of the weights and not the model."""

_TUNED = {"instruct", "chat", "base", "it", "hf", "meta", "thinking", "dynamic", "block", "kv"}
"""Words of a name that tell how a model was trained or packed: its shape is the same."""

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+[a-z]*)*")
_DATE = re.compile(r"(?:\d{4}|20\d{6})$")


@attrs.frozen
class Shipped:
    """A model that ships with parframe.

    Parameters
    ----------
    name
        Its usual name.
    file
        The stem of its files.
    weights
        The dtype of its weights: what the name that it was found by says, or as it was published
        (``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``).
    note
        What its user should know of its description, or nothing.
    """

    name: str
    file: str
    weights: str
    note: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration, as in a config.json."""
        return _config(self.file)

    def graph(self) -> OperatorGraph:
        """Its operator graph, exported before; equal layers once."""
        return _graph(self.file)


@cache
def shipped() -> tuple[Shipped, ...]:
    """Every model that ships, as the catalogue lists them."""
    return tuple(
        Shipped(
            entry["name"],
            entry["file"],
            entry.get("weights") or _DTYPES[_config(entry["file"])["dtype"]],
            entry.get("note", ""),
        )
        for entry in _catalogue()
    )


def known(name: str) -> Shipped | None:
    """The model that a name means, or None if none of that name ships.

    Owners (``openai/``), case, signs between words, dates and words such as ``Instruct`` do not
    count; a suffix of quantisation (``FP8``, ``AWQ``) says the dtype of the weights.
    """
    key, dtype = _key(name)
    found = _keys().get(key)
    if found is None:
        return None
    return attrs.evolve(found, weights=dtype) if dtype else found


def find(name: str) -> Shipped:
    """The model that a name means.

    Raises
    ------
    ParframeError
        Of kind ``load``, with the nearest names, if none of that name ships.
    """
    found = known(name)
    if found is not None:
        return found
    keys = _keys()
    near = difflib.get_close_matches(_key(name)[0], keys, n=3, cutoff=0.5)
    names = list(dict.fromkeys(keys[key].name for key in near))
    raise ParframeError(
        "load",
        f"model {name[:80]!r}",
        "is not one that ships with parframe"
        + (f" (the nearest are {', '.join(names)})" if names else ""),
        "name one of those that `parframe fit` lists, or give a model's folder or config.json",
    )


def _key(name: str) -> tuple[str, str]:
    """What of a name tells the model, and the dtype that it says (or nothing)."""
    words = _WORD.findall(name.casefold().rstrip("/").rsplit("/", 1)[-1])
    dtype = next((_SUFFIXES[word] for word in reversed(words) if word in _SUFFIXES), "")
    kept = [
        word
        for place, word in enumerate(words)
        if word not in _SUFFIXES and word not in _TUNED and not (place and _DATE.match(word))
    ]
    return "".join(kept), dtype


@cache
def _keys() -> dict[str, Shipped]:
    """Every spelling of a shipped model's name, as `_key` writes it."""
    found: dict[str, Shipped] = {}
    for model, entry in zip(shipped(), _catalogue(), strict=True):
        for name in (entry["name"], entry["file"], *entry.get("names", ())):
            found[_key(name)[0]] = model
    return found


@cache
def _catalogue() -> tuple[dict[str, Any], ...]:
    text = files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["model"])


def _config(file: str) -> dict[str, Any]:
    text = files(__package__).joinpath("configs", f"{file}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _graph(file: str) -> OperatorGraph:
    packed = files(__package__).joinpath("graphs", f"{file}.json.gz").read_bytes()
    return graph_json.parse_graph(gzip.decompress(packed).decode("utf-8"))
