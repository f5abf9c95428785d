"""A type of model of transformers, made small with random weights, and what it computes itself."""

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

from parframe.coverage.shrink import RESERVED, VOCABULARY, tiny_contents

SIZES = ((2, 5), (1, 11))
"""Batches and lengths of the prompts on which models are compared."""


class NotRunnableError(Exception):
    """Transformers itself does not run a type of model on a prompt; the reason why."""


@attrs.frozen(eq=False)
class Sample:
    """A small model in float64 with random weights."""

    config: Any
    model: torch.nn.Module
    prompts: tuple[torch.Tensor, ...]
    answers: tuple[torch.Tensor, ...]


def model_types() -> dict[str, str]:
    """The types that have a causal language model, and its class."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    names = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return {
        kind: name if isinstance(name, str) else name[0] for kind, name in sorted(names.items())
    }


def sample(model_type: str) -> Sample:
    """The type's causal language model, small enough to run at once, run on two prompts.

    Raises
    ------
    NotRunnableError
        If no small configuration of it runs in transformers; the reason is that of the first.
    """
    first: Exception | None = None
    transformers: Any = importlib.import_module("transformers")
    try:
        kind = getattr(transformers, model_types()[model_type])
        made = transformers.CONFIG_MAPPING[model_type]
        contents = list(tiny_contents(made().to_dict(), model_type))
    except Exception as error:
        raise NotRunnableError(_line(error)) from error
    for content in contents:
        try:
            return _sample(made.from_dict(content), kind)
        except Exception as error:  # noqa: BLE001  # whatever transformers says
            first = first or error
    raise NotRunnableError(_line(first)) from first


def _sample(config: Any, kind: Any) -> Sample:
    if config.sub_configs.get("text_config") is kind.config_class:
        config = config.get_text_config()
    config.architectures = [kind.__name__]
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    if hasattr(config, "use_cache"):
        config.use_cache = False
    model = randomised(_built(kind, config)).eval()
    prompts = tuple(_prompt(batch, length) for batch, length in SIZES)
    return Sample(config, model, prompts, tuple(logits(model, prompt) for prompt in prompts))


def _built(kind: Any, config: Any) -> torch.nn.Module:
    model: torch.nn.Module = kind._from_config(
        copy.deepcopy(config), attn_implementation="eager", experts_implementation="eager"
    )
    return model.double()


def _prompt(batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, VOCABULARY - RESERVED, (batch, length), generator=generator)


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module with random weights of both signs: those of norms around 1, others around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(drawn * scale + (1.0 if parameter.dim() < 2 else 0.0))
    return module


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float64 what a model would cast to something narrower."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_widen, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Rounded(TorchFunctionMode):
    """Rounds numbers written in a model's code to the dtype it names, although computing wider."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("dtype") is torch.float32:
            args = (np.asarray(args[0], np.float32).astype(np.float64), *args[1:])
        return func(*args, **kwargs)


def _widen(value: Any) -> Any:
    narrow = isinstance(value, torch.dtype) and value in (torch.float32, torch.bfloat16)
    return torch.float64 if narrow else value


def logits(model: torch.nn.Module, prompt: torch.Tensor) -> torch.Tensor:
    """What a model itself gives for a prompt, no floating-point number narrower than float64."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), _Rounded(), _Widened():  # type: ignore[no-untyped-call]
            found: torch.Tensor = model(input_ids=prompt).logits
    finally:
        torch.set_default_dtype(kept)
    return found


def _line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}" if lines else type(error).__name__
