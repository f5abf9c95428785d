"""parframe's operator of a layer of experts, and its function in transformers' registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch

from parframe.loading.activation import UnsupportedActivationError, run, trace


class UnsupportedExpertsError(Exception):
    """Experts that parframe's operator does not compute."""


@attrs.frozen
class Form:
    """How experts keep and use their weights.

    Parameters
    ----------
    activation
        What is done between the two products, as `parframe.loading.activation` writes it.
    gates
        How many values of the first product make one of the second's.
    interleaved
        Whether these lie side by side in the first weight.
    transposed
        Whether weights are kept as ``[experts, in, out]``.
    """

    activation: str
    gates: int
    interleaved: bool
    transposed: bool


@torch.library.custom_op("parframe::experts", mutates_args=())
def experts(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    activation: str,
    gates: int,
    interleaved: bool,
    transposed: bool,
) -> torch.Tensor:
    """Tokens through the experts that were chosen for each, weighted and summed.

    Parameters
    ----------
    hidden
        ``[tokens, in]``.
    ids
        ``[tokens, choices]``: the numbers of the experts of every token; a choice whose number is
        that of no expert counts nothing.
    weights
        ``[tokens, choices]``: what the result of each choice is multiplied by.
    up, up_bias
        ``[experts, gates * width, in]``, or ``[experts, in, gates * width]`` where
        ``transposed``; ``[experts, gates * width]``.
    down, down_bias
        ``[experts, out, width]``, or ``[experts, width, out]``; ``[experts, out]``.
    activation, gates, interleaved, transposed
        See `Form`.

    Returns
    -------
    torch.Tensor
        ``[tokens, out]``, of the dtype of ``hidden``.
    """
    form = Form(activation, gates, interleaved, transposed)
    return mixed(hidden, ids, weights, up, up_bias, down, down_bias, form)


@experts.register_fake
def _experts_shape(hidden, ids, weights, up, up_bias, down, down_bias, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[-1] else 1])


def mixed(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    form: Form,
    first: int = 0,
) -> torch.Tensor:
    """As `experts`, of a part of the experts: those from number ``first`` on."""
    width = down.shape[2 if form.transposed else 1]
    wide = torch.promote_types(hidden.dtype, weights.dtype)
    result = hidden.new_zeros(hidden.shape[0], width, dtype=wide)
    for number in torch.unique(ids).tolist():
        expert = number - first
        if not 0 <= expert < up.shape[0]:
            continue
        tokens, choices = torch.where(ids == number)
        inner = _product(hidden[tokens], up[expert], up_bias, expert, form.transposed)
        inner = run(form.activation, inner)
        outer = _product(inner, down[expert], down_bias, expert, form.transposed)
        result.index_add_(0, tokens, outer * weights[tokens, choices, None])
    return result.to(hidden.dtype)


def _product(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    expert: int,
    transposed: bool,
) -> torch.Tensor:
    wide = torch.promote_types(rows.dtype, weight.dtype)
    turned = weight if transposed else weight.transpose(0, 1)
    product = rows.to(wide) @ turned.to(wide)
    return product if bias is None else product + bias[expert]


def forms_of(model: torch.nn.Module) -> Mapping[int, Form]:
    """The forms of a model's layers of experts, by the identity of their modules.

    Raises
    ------
    UnsupportedExpertsError
        If one has another form.
    """
    found: dict[int, Form] = {}
    known: dict[object, Form] = {}
    for layer in _layers(model):
        key = (type(layer), layer.down_proj.shape, repr(getattr(layer, "act_fn", None)))
        if key not in known:
            known[key] = _form(layer)
        found[id(layer)] = known[key]
    return found


def _layers(model: torch.nn.Module) -> Iterator[Any]:
    """The modules that take their forward from transformers' registry of experts."""
    for module in model.modules():
        if hasattr(module, "has_gate") and hasattr(module, "is_concatenated"):
            yield module


def _form(layer: Any) -> Form:
    if layer.has_post_expert_norm:
        raise UnsupportedExpertsError("experts with a norm after each")
    gates = 2 if layer.has_gate else 1
    interleaved = layer.has_gate and not layer.is_concatenated
    width = layer.down_proj.shape[1 if layer.is_transposed else 2]
    function = layer._apply_gate if layer.has_gate else layer.act_fn
    try:
        activation = trace(function, width, gates, interleaved)
    except UnsupportedActivationError as error:
        raise UnsupportedExpertsError(str(error)) from error
    return Form(activation, gates, interleaved, layer.is_transposed)


def registered_experts(forms: Mapping[int, Form]) -> Any:
    """A function for transformers' registry that calls parframe's operator."""

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
