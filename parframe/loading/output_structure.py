"""Structure of a model's return value, as graphs store it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from parframe.errors import ParframeError


def output_structure(value: Any) -> Any:
    """Convert a return value, with names in place of tensors, to a graph's outputs.

    Outputs are names, tuples, and dicts with ``$class``; other types are refused.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        if fields:
            return _named_fields(value, zip(fields, value, strict=True))
        return tuple(output_structure(part) for part in value)
    if attrs.has(type(value)) or hasattr(value, "__dataclass_fields__"):
        items = value.items() if hasattr(value, "items") else vars(value).items()
        return _named_fields(value, items)
    if isinstance(value, Mapping):
        return {str(key): output_structure(part) for key, part in value.items()}
    raise ParframeError(
        "load",
        type(value).__name__,
        "the model returns something other than tensors, tuples, lists and dicts",
        "wrap the model in a module that returns one of those",
    )


def _named_fields(value: Any, items: Any) -> dict[str, Any]:
    parts = {str(key): output_structure(part) for key, part in items if part is not None}
    return {"$class": type(value).__name__, **parts}
