"""Layers of experts of transformers: their forms, and their function in its registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from parframe.loading.huggingface.activation import UnsupportedExpertsError, trace_activation
from parframe.ops.experts import ExpertsForm, experts


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
