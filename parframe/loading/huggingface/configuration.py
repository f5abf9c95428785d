"""Configurations of transformers: built from a config.json, and adapted for an export."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import torch

from parframe.errors import ParframeError, did_you_mean
from parframe.loading.export import first_line

transformers: Any = importlib.import_module("transformers")
"""The transformers library, without types."""


def build_config(content: dict[str, Any]) -> Any:
    """Build the configuration that the content of a config.json describes.

    Raises
    ------
    ParframeError
        If transformers does not know its ``model_type``, or rejects the content.
    """
    known = transformers.CONFIG_MAPPING
    name = content.get("model_type")
    if not isinstance(name, str) or name not in known:
        raise ParframeError(
            "load",
            "model_type",
            f"{str(name)[:60]!r} is not a model type that transformers knows"
            + (did_you_mean(name, known.keys()) if isinstance(name, str) else ""),
            "update transformers, or build the model yourself and load the module with example"
            " inputs",
        )
    try:
        return known[name].from_dict(content)
    except Exception as error:
        raise ParframeError(
            "load", f"config of {name}", first_line(error), "correct the configuration"
        ) from error


def nested_configs(config: Any) -> list[Any]:
    """Return a configuration and its sub-configurations."""
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    return [config, *(part for part in inner if part is not None)]


def disable_cache(config: Any) -> None:
    """Set ``use_cache`` to false in a configuration and its sub-configurations."""
    for part in nested_configs(config):
        if hasattr(part, "use_cache"):
            part.use_cache = False


def narrow_dtype(config: Any, dtype: torch.dtype) -> None:
    """Set the dtype of a configuration, unless the one it has is as narrow or narrower."""
    current = getattr(config, "dtype", None) or torch.float32
    if torch.promote_types(current, dtype) == dtype:
        return
    for part in nested_configs(config):
        part.dtype = dtype


def to_json(value: Any) -> Any:
    """Convert the content of a configuration to values that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    plain = isinstance(value, str | int | None) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if plain else str(value)
