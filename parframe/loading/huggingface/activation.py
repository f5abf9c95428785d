"""Tracing of what experts compute between their two products, as text that a graph can store."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph_json import encode_operator
from parframe.loading.export import export
from parframe.ops.activation import INPUT, run_activation

_ROWS = 5
_CLOSE = 1e-9


class UnsupportedExpertsError(Exception):
    """Layer of experts that parframe's operator does not compute."""


class _Wrapped(torch.nn.Module):
    """A function of one tensor as a module, so that it can be exported."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(rows)


def trace_activation(
    function: Callable[[torch.Tensor], torch.Tensor], columns: int, gates: int, interleaved: bool
) -> str:
    """Write a function from ``[rows, gates * columns]`` to ``[rows, columns]`` as text.

    The first product has `gates` values for each one of the second (2 with a gate). They are
    adjacent if `interleaved`; otherwise all of the first come before the second. `run_activation`
    takes the text.

    Raises
    ------
    UnsupportedExpertsError
        If the function takes weights of its own, or a column's result depends on other columns.
    """
    example = torch.zeros(_ROWS, gates * columns, dtype=torch.float64)
    try:
        program = export(_Wrapped(function), {INPUT: example}, {INPUT: (INPUT, "")})
    except ParframeError as error:
        raise UnsupportedExpertsError(error.what) from error
    if program.parameters or not isinstance(program.outputs, str):
        raise UnsupportedExpertsError("an activation with weights of its own")
    # The only line of code in the trace is this module's own: a graph does not depend on it.
    rows = [encode_operator(attrs.evolve(one, source="")) for one in program.operators]
    text = json.dumps([*rows, program.outputs], separators=(",", ":"))
    _check_columns(text, columns, gates, interleaved)
    return text


def _check_columns(text: str, columns: int, gates: int, interleaved: bool) -> None:
    """Check that any part of the columns can be computed alone, in any order."""
    generator = torch.Generator().manual_seed(0)
    shape = (_ROWS, gates * columns)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64) * 4
    whole = run_activation(text, rows)
    if whole.shape != (_ROWS, columns):
        raise UnsupportedExpertsError("an activation that changes the width otherwise")
    order = torch.randperm(columns, generator=generator)[: max(1, columns // 2 + 1)]
    form = (_ROWS, columns, gates) if interleaved else (_ROWS, gates, columns)
    part = rows.reshape(form).index_select(1 if interleaved else 2, order).reshape(_ROWS, -1)
    found = run_activation(text, part)
    expected = whole[:, order]
    if found.shape != expected.shape or not torch.allclose(found, expected, _CLOSE, _CLOSE):
        raise UnsupportedExpertsError("an activation across the columns")
