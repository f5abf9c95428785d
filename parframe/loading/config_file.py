"""The config.json of a Hugging Face model, read as untrusted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parframe.errors import ParframeError
from parframe.json_input import read_json, read_text

_LARGEST_CONFIG = 16 << 20
_MOST_LAYERS = 10_000
_LARGEST_NUMBER = 1 << 40
_MOST_LEVELS = 8


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises
    ------
    ParframeError
        Of kind ``load`` if the file is missing, too large, not UTF-8 or not a JSON object.
    """
    content = read_json(path, "load")
    if not isinstance(content, dict):
        raise ParframeError(
            "load", str(path), "is not a JSON object", "give a config.json or a graph's .json"
        )
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the configuration of a model folder.

    Raises
    ------
    ParframeError
        Of kind ``load`` if the folder has none, or `check_config` refuses it.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ParframeError(
            "load", str(folder), "has no config.json", "give the folder of a Hugging Face model"
        )
    read_text(path, "load", _LARGEST_CONFIG)
    return check_config(read_object(path), str(path))


def check_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a configuration; refuse one that names code to run or has numbers out of range.

    Raises
    ------
    ParframeError
        Of kind ``load``, naming the key.
    """
    if config.get("auto_map"):
        raise ParframeError(
            "load",
            f"{where}, auto_map",
            "the model needs Python code from its folder, which parframe never runs",
            "build the model yourself and load the module with example inputs",
        )
    _check_numbers(config, where, depth=_MOST_LEVELS)
    return config


def _check_numbers(value: Any, where: str, depth: int) -> None:
    if depth == 0:
        raise ParframeError(
            "load",
            where,
            f"is nested more than {_MOST_LEVELS} levels deep",
            "give a config.json that transformers wrote",
        )
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "auto_map" and part:
                check_config({key: part}, where)
            _check_layers(str(key), part, where)
            _check_numbers(part, f"{where}, {str(key)[:60]}", depth - 1)
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, where, depth - 1)
    elif isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise ParframeError(
            "load",
            where,
            f"the number {str(value)[:30]} is out of range",
            f"use a number up to {_LARGEST_NUMBER}",
        )


def _check_layers(key: str, value: Any, where: str) -> None:
    counted = "layer" in key and isinstance(value, int) and not isinstance(value, bool)
    if counted and key in ("num_hidden_layers", "num_layers", "n_layer") and value < 1:
        raise ParframeError(
            "load", f"{where}, {key}", f"{value} is not a number of layers", "use at least 1 layer"
        )
    if counted and value > _MOST_LAYERS:
        raise ParframeError(
            "load",
            f"{where}, {key[:60]}",
            f"{value} layers are more than the {_MOST_LAYERS} that parframe supports",
            f"use at most {_MOST_LAYERS} layers",
        )
