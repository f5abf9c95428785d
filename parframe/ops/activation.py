"""Activations of experts as text that a graph can store, and the function that runs the text.

`parframe.loading.huggingface.experts` writes the text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.graph_json import decode_operator
from parframe.json_input import parse_json
from parframe.ops.schema import find_overload, is_dtype

INPUT = "rows"
"""The name of the value that the text's operators start from."""


def run_activation(text: str, rows: torch.Tensor) -> torch.Tensor:
    """Compute a stored activation; its casts never narrow the dtype of the input."""
    operators, output = _parse(text)
    values = {INPUT: rows}
    for operator in operators:
        results = _call(operator, values, rows.dtype)
        values.update(zip(operator.outputs, results, strict=True))
    return values[output]


@lru_cache(maxsize=1_000)
def _parse(text: str) -> tuple[tuple[Operator, ...], str]:
    match parse_json(text, "activation"):
        case [*rows, str(output)]:
            return tuple(map(decode_operator, rows)), output
    raise ParframeError("graph", "activation", "not an activation", "load the model again")


def _call(operator: Operator, values: dict[str, torch.Tensor], least: torch.dtype) -> Any:
    if not operator.target.startswith("aten."):
        raise ParframeError(
            "run", operator.name, f"{operator.target} may not run here", "use PyTorch's operators"
        )
    target = find_overload(operator.target)
    named: dict[str, Any] = {}
    for argument in target._schema.arguments:
        if argument.name not in operator.args:
            continue
        value: Any = operator.args[argument.name]
        if is_dtype(argument) and isinstance(value, str):
            value = torch.promote_types(getattr(torch, value), least)
        named[argument.name] = _fill(value, values)
    result = target(**named)
    return (result,) if isinstance(result, torch.Tensor) else result


def _fill(value: Any, values: dict[str, torch.Tensor]) -> Any:
    if hasattr(value, "name"):
        return values[value.name]
    return [_fill(part, values) for part in value] if isinstance(value, tuple) else value
