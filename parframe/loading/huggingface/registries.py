"""parframe's attention, masks and experts, registered in transformers while a model is exported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import masking_utils
from transformers.integrations.moe import ExpertsInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from parframe.loading.huggingface.experts import make_experts_function
from parframe.loading.huggingface.mask_functions import MaskPattern, UnreadableMaskError, read_mask
from parframe.ops.attention import attention
from parframe.ops.experts import ExpertsForm

IMPLEMENTATION = "parframe"
"""The name under which parframe's attention, masks and experts are registered."""

IGNORED_ARGUMENTS = frozenset(
    {
        "position_ids", "cache_position", "position_embeddings", "use_cache", "dropout",
        "output_attentions", "output_hidden_states", "output_router_logits", "return_dict",
        "deterministic", "training", "layer_idx", "past_key_values", "logits_to_keep", "labels",
        "num_items_in_batch",
    }
)  # fmt: skip
"""Arguments that do not change the result of attention at inference."""

_LOCK = threading.RLock()


class UnsupportedAttentionError(Exception):
    """Attention that parframe's operator does not support; the model's own is exported instead."""


class Usage:
    """Record of the registered functions that one export uses."""

    def __init__(self) -> None:
        self.forms: dict[int, ExpertsForm] = {}  # by the identity of the experts' modules
        self.positions: torch.Tensor | None = None  # the positions that are an input
        self.masks_made = 0  # the number of masks that the model makes
        self.masks_used = 0  # the number of calls of attention with such a mask


@contextmanager
def register_implementations(packed: bool) -> Iterator[Usage]:
    """Register parframe's implementations in transformers while the context lasts.

    If position ids are not `packed` (several sequences in one row), transformers does not search
    for packed sequences.
    """
    usage = Usage()
    registries: tuple[tuple[dict[str, Any], Callable[..., Any]], ...] = (
        (AttentionInterface._global_mapping, _attention(usage)),
        (AttentionMaskInterface._global_mapping, _mask(usage)),
        (ExpertsInterface._global_mapping, make_experts_function(usage.forms)),
    )
    with _LOCK:
        search = masking_utils.find_packed_sequence_indices
        for mapping, function in registries:
            mapping[IMPLEMENTATION] = function
        if not packed:
            masking_utils.find_packed_sequence_indices = lambda position_ids: None
        try:
            yield usage
        finally:
            masking_utils.find_packed_sequence_indices = search
            for mapping, _ in registries:
                mapping.pop(IMPLEMENTATION, None)


def _mask(usage: Usage) -> Callable[..., MaskPattern]:
    """Return a mask function that returns the pattern of the mask instead of computing it."""

    def mask(
        *args: Any, mask_function: Callable[..., Any], attention_mask: Any = None, **kwargs: Any
    ) -> MaskPattern:
        if attention_mask is not None:
            raise UnreadableMaskError("a mask that is an input of the model")
        offsets = [kwargs.get(name, 0) for name in ("q_offset", "kv_offset")]
        if not all(isinstance(offset, int) and offset == 0 for offset in offsets):
            raise UnreadableMaskError("a mask of positions that do not start at 0")
        usage.masks_made += 1
        return read_mask(mask_function)

    return mask


def _attention(usage: Usage) -> Callable[..., tuple[torch.Tensor, None]]:
    """Return an attention function that calls parframe's operator."""

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: MaskPattern | torch.Tensor | None,
        scaling: float | None = None,
        is_causal: bool | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **rest: Any,
    ) -> tuple[torch.Tensor, None]:
        _check_arguments(rest)
        usage.masks_used += isinstance(attention_mask, MaskPattern)
        pattern = _pattern(module, attention_mask, is_causal, sliding_window)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        positioned = pattern.causal or pattern.window is not None
        result = attention(
            query,
            key,
            value,
            _positions(usage, query) if positioned else None,
            _positions(usage, key) if positioned else None,
            s_aux,
            _bias(attention_mask, position_bias),
            float(scale),
            pattern.causal,
            pattern.window,
            softcap,
        )
        return result, None

    return attend


def _positions(usage: Usage, tensor: torch.Tensor) -> torch.Tensor:
    """Return the position of each query or key: the model's input, or numbers from 0."""
    positions = usage.positions
    if positions is not None and positions.shape[-1] == tensor.shape[2]:
        return positions
    return torch.arange(tensor.shape[2], device=tensor.device)


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that parframe's attention does not support."""
    for name, value in arguments.items():
        if value is not None and name not in IGNORED_ARGUMENTS:
            raise UnsupportedAttentionError(f"attention with the argument {name!r}")


def _pattern(
    module: torch.nn.Module,
    mask: MaskPattern | torch.Tensor | None,
    is_causal: bool | None,
    window: int | None,
) -> MaskPattern:
    """Return the mask pattern of an attention call, from the mask or else from the module."""
    if isinstance(mask, MaskPattern):
        return mask
    if mask is not None:
        return MaskPattern(False, None)
    if window is not None:
        raise UnsupportedAttentionError("attention with a window and no mask")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    return MaskPattern(bool(causal), None)


def _bias(
    mask: MaskPattern | torch.Tensor | None, position_bias: torch.Tensor | None
) -> torch.Tensor | None:
    if not isinstance(mask, torch.Tensor):
        return position_bias
    if position_bias is None:
        return mask
    raise UnsupportedAttentionError("attention with both a mask and a bias")
