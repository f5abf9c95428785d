"""Reference models: small models of transformers with random weights, and their logits."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import attrs
import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from parframe.coverage.small_config import RESERVED, VOCABULARY, small_configs

SIZES = ((2, 5), (1, 11))
"""Batch sizes and lengths of the prompts on which models are compared."""


class NotRunnableError(Exception):
    """Model type that transformers itself does not run on a prompt of text."""


@attrs.frozen(eq=False)
class ReferenceModel:
    """Small model in float64 with random weights, with prompts and its logits for them."""

    config: Any
    model: torch.nn.Module
    prompts: tuple[torch.Tensor, ...]
    logits: tuple[torch.Tensor, ...]


def model_types() -> dict[str, str]:
    """Return the model types that have a causal language model, with its class."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    names = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return {
        kind: name if isinstance(name, str) else name[0] for kind, name in sorted(names.items())
    }


def build_reference(model_type: str) -> ReferenceModel:
    """Build a small causal language model of a type, and run it on two prompts.

    Raises
    ------
    NotRunnableError
        If transformers runs no small configuration of it, with the error of the first.
    """
    first: Exception | None = None
    transformers: Any = importlib.import_module("transformers")
    try:
        kind = getattr(transformers, model_types()[model_type])
        config_class = transformers.CONFIG_MAPPING[model_type]
        contents = list(small_configs(config_class().to_dict(), model_type))
    except Exception as error:
        raise NotRunnableError(_line(error)) from error
    for content in contents:
        try:
            return _run(config_class.from_dict(content), kind)
        except Exception as error:  # noqa: BLE001  # transformers raises errors of any kind
            first = first or error
    raise NotRunnableError(_line(first)) from first


def _run(config: Any, kind: Any) -> ReferenceModel:
    """Build the model of a small configuration, and run it on the prompts."""
    if config.sub_configs.get("text_config") is kind.config_class:
        config = config.get_text_config()
    config.architectures = [kind.__name__]
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    if hasattr(config, "use_cache"):
        config.use_cache = False
    model = kind._from_config(
        copy.deepcopy(config), attn_implementation="eager", experts_implementation="eager"
    )
    model = randomize(model.double()).eval()
    prompts = tuple(_prompt(batch, length) for batch, length in SIZES)
    logits = tuple(compute_logits(model, prompt) for prompt in prompts)
    return ReferenceModel(config, model, prompts, logits)


def _prompt(batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, VOCABULARY - RESERVED, (batch, length), generator=generator)


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Set random weights of both signs: vectors (norms, biases) around 1, matrices around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(drawn * scale + (1.0 if parameter.dim() < 2 else 0.0))
    return module


class _Float64Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode in which casts to narrower floating-point dtypes become casts to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_widen, (args, kwargs or {}))
        return func(*args, **kwargs)


class _LiteralRoundingMode(TorchFunctionMode):
    """Mode in which float32 literals of a model become float64 values rounded to float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("dtype") is torch.float32:
            args = (np.asarray(args[0], np.float32).astype(np.float64), *args[1:])
        return func(*args, **kwargs)


def _widen(value: Any) -> Any:
    narrow = isinstance(value, torch.dtype) and value in (torch.float32, torch.bfloat16)
    return torch.float64 if narrow else value


def compute_logits(model: torch.nn.Module, prompt: torch.Tensor) -> torch.Tensor:
    """Compute a model's logits for a prompt, in float64 throughout."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), _LiteralRoundingMode(), _Float64Mode():  # type: ignore[no-untyped-call]
            logits: torch.Tensor = model(input_ids=prompt).logits
    finally:
        torch.set_default_dtype(default)
    return logits


def _line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}" if lines else type(error).__name__
