"""What experts do between their two products, as text that a graph can keep: traced, and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.loading.export import export
from parframe.loading.schema import is_dtype, overload
from parframe.serial import decode_operator, encode_operator, read_json

_ROWS = 5
_INPUT = "rows"
_CLOSE = 1e-9


class UnsupportedActivationError(Exception):
    """Something that is not computed for each column of the products alone."""


class _Wrapped(torch.nn.Module):
    """A function of one tensor as a module, so that it can be exported."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(rows)


def trace(
    function: Callable[[torch.Tensor], torch.Tensor], columns: int, gates: int, interleaved: bool
) -> str:
    """Write a function of the first product's rows as text.

    Parameters
    ----------
    function
        Takes ``[rows, gates * columns]``, gives ``[rows, columns]``.
    columns
        The experts' inner width.
    gates
        How many values of the first product make one of the second's: 2 if there is a gate.
    interleaved
        Whether these lie side by side; otherwise all of the first come before the second.

    Returns
    -------
    str
        What `run` runs.

    Raises
    ------
    UnsupportedActivationError
        If the function takes weights of its own, or a column's result depends on other columns.
    """
    example = torch.zeros(_ROWS, gates * columns, dtype=torch.float64)
    try:
        program = export(_Wrapped(function), {_INPUT: example}, {_INPUT: (_INPUT, "")})
    except ParframeError as error:
        raise UnsupportedActivationError(error.what) from error
    if program.parameters or not isinstance(program.outputs, str):
        raise UnsupportedActivationError("an activation with weights of its own")
    rows = [encode_operator(operator) for operator in program.operators]
    text = json.dumps([*rows, program.outputs], separators=(",", ":"))
    _check_columns(text, columns, gates, interleaved)
    return text


def run(text: str, rows: torch.Tensor) -> torch.Tensor:
    """Compute what `trace` wrote; no cast in it makes numbers narrower than they are."""
    operators, output = _parsed(text)
    values = {_INPUT: rows}
    for operator in operators:
        results = _call(operator, values, rows.dtype)
        values.update(zip(operator.outputs, results, strict=True))
    return values[output]


@lru_cache(maxsize=1_000)
def _parsed(text: str) -> tuple[tuple[Operator, ...], str]:
    match read_json(text, "activation"):
        case [*rows, str(output)]:
            return tuple(map(decode_operator, rows)), output
    raise ParframeError("graph", "activation", "is not one", "load the model again")


def _call(operator: Operator, values: dict[str, torch.Tensor], least: torch.dtype) -> Any:
    if not operator.target.startswith("aten."):
        raise ParframeError(
            "run", operator.name, f"{operator.target} may not run here", "use PyTorch's operators"
        )
    target = overload(operator.target)
    named: dict[str, Any] = {}
    for argument in target._schema.arguments:
        if argument.name not in operator.args:
            continue
        value: Any = operator.args[argument.name]
        if is_dtype(argument) and isinstance(value, str):
            value = torch.promote_types(getattr(torch, value), least)
        named[argument.name] = _filled(value, values)
    result = target(**named)
    return (result,) if isinstance(result, torch.Tensor) else result


def _filled(value: Any, values: dict[str, torch.Tensor]) -> Any:
    if hasattr(value, "name"):
        return values[value.name]
    return [_filled(part, values) for part in value] if isinstance(value, tuple) else value


def _check_columns(text: str, columns: int, gates: int, interleaved: bool) -> None:
    """Make sure that any part of the columns can be computed alone, in any order."""
    generator = torch.Generator().manual_seed(0)
    shape = (_ROWS, gates * columns)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64) * 4
    whole = run(text, rows)
    if whole.shape != (_ROWS, columns):
        raise UnsupportedActivationError("an activation that changes the width otherwise")
    order = torch.randperm(columns, generator=generator)[: max(1, columns // 2 + 1)]
    form = (_ROWS, columns, gates) if interleaved else (_ROWS, gates, columns)
    part = rows.reshape(form).index_select(1 if interleaved else 2, order).reshape(_ROWS, -1)
    found = run(text, part)
    expected = whole[:, order]
    if found.shape != expected.shape or not torch.allclose(found, expected, _CLOSE, _CLOSE):
        raise UnsupportedActivationError("an activation across the columns")
