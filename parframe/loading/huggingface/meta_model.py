"""Models of transformers, built on the meta device."""

from __future__ import annotations

import copy
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.loading.export import first_line
from parframe.loading.huggingface.experts import UnsupportedExpertsError, find_forms
from parframe.loading.huggingface.registries import IMPLEMENTATION, Usage

_MOST_MODULES = 400_000


def build_model(model_class: Any, config: Any, attention: str) -> Any:
    """Build a model on the meta device, with an attention implementation of this name.

    Raises
    ------
    ParframeError
        If no model can be built from the configuration.
    """
    config = copy.deepcopy(config)
    count = 0

    def limit(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > _MOST_MODULES:
            raise ValueError(f"the model has more than {_MOST_MODULES} modules")

    hook = torch.nn.modules.module.register_module_module_registration_hook(limit)
    try:
        with torch.device("meta"):
            return model_class._from_config(
                config, attn_implementation=attention, experts_implementation="batched_mm"
            ).eval()
    except Exception as error:
        raise ParframeError(
            "load",
            model_class.__name__,
            f"no model can be built from its configuration ({first_line(error)})",
            "correct the configuration",
        ) from error
    finally:
        hook.remove()


def attention_implementations(model_class: Any) -> tuple[str, ...]:
    """Return the attention implementations to try, in order."""
    parframe = (IMPLEMENTATION,) if model_class._supports_attention_backend else ()
    return (*parframe, *(("sdpa",) if model_class._supports_sdpa else ()), "eager")


def use_parframe_experts(model: Any, usage: Usage) -> Any:
    """Compute a model's experts by parframe's operator, where it supports them."""
    try:
        usage.forms.update(find_forms(model))
    except UnsupportedExpertsError:
        return model
    for part in model.modules():
        config = getattr(part, "config", None)
        if id(part) in usage.forms and config is not None:
            config._experts_implementation_internal = IMPLEMENTATION
    return model
