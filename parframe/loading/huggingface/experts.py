"""Layers of experts of transformers: their forms, and their function in its registry.

The form contains what experts compute between their two products, traced as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph_json import encode_operator
from parframe.loading.export import export
from parframe.ops.activation import INPUT, run_activation
from parframe.ops.experts import ExpertsForm, experts

_ROWS = 5
_CLOSE = 1e-9


class UnsupportedExpertsError(Exception):
    """Layer of experts that parframe's operator does not compute."""


def find_forms(model: torch.nn.Module) -> Mapping[int, ExpertsForm]:
    """Return the forms of a model's layers of experts, by the identity of their modules.

    Raises
    ------
    UnsupportedExpertsError
        If one has another form.
    """
    found: dict[int, ExpertsForm] = {}
    known: dict[object, ExpertsForm] = {}
    for layer in model.modules():
        if not hasattr(layer, "has_gate") or not hasattr(layer, "is_concatenated"):
            continue  # it does not take its forward from transformers' registry of experts
        key = (type(layer), layer.down_proj.shape, repr(getattr(layer, "act_fn", None)))
        if key not in known:
            known[key] = _form(layer)
        found[id(layer)] = known[key]
    return found


def _form(layer: Any) -> ExpertsForm:
    if layer.has_post_expert_norm:
        raise UnsupportedExpertsError("experts with a norm after each")
    gates = 2 if layer.has_gate else 1
    interleaved = layer.has_gate and not layer.is_concatenated
    width = layer.down_proj.shape[1 if layer.is_transposed else 2]
    function = layer._apply_gate if layer.has_gate else layer.act_fn
    activation = trace_activation(function, width, gates, interleaved)
    return ExpertsForm(activation, gates, interleaved, layer.is_transposed)


def make_experts_function(forms: Mapping[int, ExpertsForm]) -> Any:
    """Return a function for transformers' registry that calls parframe's operator."""

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        form = forms[id(self)]
        result: torch.Tensor = experts(
            hidden_states,
            top_k_index,
            top_k_weights,
            self.gate_up_proj if self.has_gate else self.up_proj,
            (self.gate_up_proj_bias if self.has_gate else self.up_proj_bias)
            if self.has_bias
            else None,
            self.down_proj,
            self.down_proj_bias if self.has_bias else None,
            form.activation,
            form.gates,
            form.interleaved,
            form.transposed,
        )
        return result

    return forward


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
