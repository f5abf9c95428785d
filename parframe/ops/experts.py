"""Layers of experts: schema and local forms, of all experts and of a device's part of them."""

from __future__ import annotations

import attrs
import torch

from parframe.ops.activation import run_activation


@attrs.frozen
class ExpertsForm:
    """Storage and use of the weights of experts.

    ``activation`` is the text of the function between the two products, see
    `parframe.ops.activation`. ``gates`` values of the first product make one value of the second
    product's input; they are adjacent in the first weight if ``interleaved``. Weights are
    ``[experts, in, out]`` if ``transposed``.
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
    """Compute tokens (``[tokens, in]``) through the experts chosen for each, weighted and summed.

    ``ids`` and ``weights`` (``[tokens, choices]``) are the numbers of the experts of every token
    and the factors of their results; a choice whose number is that of no expert counts nothing.
    ``up`` is ``[experts, gates * width, in]`` and ``down`` ``[experts, out, width]``, their last
    two dims swapped where ``transposed``; biases are ``[experts, gates * width]`` and ``[experts,
    out]``. See `ExpertsForm` for the other arguments. The result is ``[tokens, out]``, of the dtype
    of ``hidden``.
    """
    form = ExpertsForm(activation, gates, interleaved, transposed)
    return compute_experts(hidden, ids, weights, up, up_bias, down, down_bias, form)


@experts.register_fake
def _experts_shape(hidden, ids, weights, up, up_bias, down, down_bias, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[-1] else 1])


@torch.library.custom_op("parframe::local_experts", mutates_args=())
def local_experts(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gates: int,
    interleaved: bool,
    transposed: bool,
    first: int,
    column: int,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute ``parframe.experts`` with the device's experts, the first of which is ``first``.

    ``column`` is the device's first inner column; a shared bias is added by the device of column 0.
    """
    columns = down.shape[1 if transposed else 2]
    if column or not columns:
        down_bias = None
    form = ExpertsForm(activation, gates, interleaved, transposed)
    return compute_experts(hidden, ids, weights, up, up_bias, down, down_bias, form, first)


@local_experts.register_fake
def _local_experts_shape(hidden, ids, weights, up, down, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[3] else 1])


LOCAL_EXPERTS = torch.ops.parframe.local_experts.default


def compute_experts(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    form: ExpertsForm,
    first: int = 0,
) -> torch.Tensor:
    """Compute `experts` with the experts whose weights are given, numbered from ``first``."""
    width = down.shape[2 if form.transposed else 1]
    wide = torch.promote_types(hidden.dtype, weights.dtype)
    result = hidden.new_zeros(hidden.shape[0], width, dtype=wide)
    for number in torch.unique(ids).tolist():
        expert = number - first
        if not 0 <= expert < up.shape[0]:
            continue
        tokens, choices = torch.where(ids == number)
        inner = _product(hidden[tokens], up[expert], up_bias, expert, form.transposed)
        inner = run_activation(form.activation, inner)
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
    columns_last = weight if transposed else weight.transpose(0, 1)
    product = rows.to(wide) @ columns_last.to(wide)
    return product if bias is None else product + bias[expert]
