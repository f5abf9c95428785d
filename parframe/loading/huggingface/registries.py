"""parframe's attention, masks and experts in transformers' registries while a model is exported."""

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

from parframe.loading.experts import make_experts_function
from parframe.loading.huggingface.mask_functions import Mask, UnreadableMaskError, read_mask
from parframe.ops.attention import attention
from parframe.ops.experts import ExpertsForm

NAME = "parframe"
"""The name of parframe's attention among transformers' implementations."""

INERT = frozenset(
    {
        "position_ids", "cache_position", "position_embeddings", "use_cache", "dropout",
        "output_attentions", "output_hidden_states", "output_router_logits", "return_dict",
        "deterministic", "training", "layer_idx", "past_key_values", "logits_to_keep", "labels",
        "num_items_in_batch",
    }
)  # fmt: skip
"""Arguments that do not change what attention computes at inference."""

_LOCK = threading.RLock()


class UnsupportedAttentionError(Exception):
    """Attention that parframe's operator does not compute; the model's own is exported instead."""


class Usage:
    """What one export makes use of.

    ``made`` counts masks and ``used`` those that attention used; ``forms`` has those of the
    model's layers of experts, by the identity of their modules; ``positions`` are the positions
    that the model was given, if it was given any.
    """

    def __init__(self) -> None:
        self.forms: dict[int, ExpertsForm] = {}
        self.positions: torch.Tensor | None = None
        self.made = 0
        self.used = 0
        self.attentions = 0


@contextmanager
def registered(packed: bool) -> Iterator[Usage]:
    """Register what parframe has of its own; afterwards transformers is as it was before.

    Parameters
    ----------
    packed
        Whether position ids may stand for several sequences in one row; if not, the model's own
        position ids are not searched for that.
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
            mapping[NAME] = function
        if not packed:
            masking_utils.find_packed_sequence_indices = _not_packed
        try:
            yield usage
        finally:
            masking_utils.find_packed_sequence_indices = search
            for mapping, _ in registries:
                mapping.pop(NAME, None)


def _not_packed(position_ids: torch.Tensor) -> None:
    return None


def _mask(usage: Usage) -> Callable[..., Mask]:
    """A mask function that says what the mask means instead of computing it."""

    def mask(
        *args: Any, mask_function: Callable[..., Any], attention_mask: Any = None, **kwargs: Any
    ) -> Mask:
        if attention_mask is not None:
            raise UnreadableMaskError("a mask that is an input of the model")
        if any(not _is_zero(kwargs.get(name, 0)) for name in ("q_offset", "kv_offset")):
            raise UnreadableMaskError("a mask of positions that do not begin at 0")
        usage.made += 1
        return read_mask(mask_function)

    return mask


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


def _attention(usage: Usage) -> Callable[..., tuple[torch.Tensor, None]]:
    """An attention function that calls parframe's operator."""

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Mask | torch.Tensor | None,
        scaling: float | None = None,
        is_causal: bool | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **rest: Any,
    ) -> tuple[torch.Tensor, None]:
        _refuse_unknown(rest)
        usage.attentions += 1
        usage.used += isinstance(attention_mask, Mask)
        seen = _meaning(module, attention_mask, is_causal, sliding_window)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        positioned = seen.causal or seen.window is not None
        result = attention(
            query,
            key,
            value,
            _positions(usage, query) if positioned else None,
            _positions(usage, key) if positioned else None,
            s_aux,
            _bias(attention_mask, position_bias),
            float(scale),
            seen.causal,
            seen.window,
            softcap,
        )
        return result, None

    return attend


def _positions(usage: Usage, tensor: torch.Tensor) -> torch.Tensor:
    """The position of each query or key: what the model was given, or their numbers."""
    given = usage.positions
    if given is not None and given.shape[-1] == tensor.shape[2]:
        return given
    return torch.arange(tensor.shape[2], device=tensor.device)


def _refuse_unknown(rest: Mapping[str, Any]) -> None:
    for name, value in rest.items():
        if value is not None and name not in INERT:
            raise UnsupportedAttentionError(f"attention with the argument {name!r}")


def _meaning(
    module: torch.nn.Module,
    mask: Mask | torch.Tensor | None,
    is_causal: bool | None,
    window: int | None,
) -> Mask:
    """What queries see: what the mask says, else what the module says."""
    if isinstance(mask, Mask):
        return mask
    if mask is not None:
        return Mask(False, None)
    if window is not None:
        raise UnsupportedAttentionError("attention with a window and no mask")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    return Mask(bool(causal), None)


def _bias(
    mask: Mask | torch.Tensor | None, position_bias: torch.Tensor | None
) -> torch.Tensor | None:
    if not isinstance(mask, torch.Tensor):
        return position_bias
    if position_bias is None:
        return mask
    raise UnsupportedAttentionError("attention with both a mask and a bias")
