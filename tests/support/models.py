"""Tiny models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_PLAIN = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 112,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_OVERRIDES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 6, "layer_types": None},
    "phi3": {},
    "gpt_neox": {},
    "gpt2": {},
    "opt": {"ffn_dim": 112, "word_embed_proj_dim": 64},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 4},
    "bloom": {},
    "starcoder2": {},
    "cohere": {},
    "cohere2": {"sliding_window": 6},
    "olmo2": {},
    "granite": {},
    "bert": {},
    "vit": {"image_size": 16, "patch_size": 4, "num_channels": 3, "num_labels": 10},
}

_EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 6},
    "qwen3_moe": {"num_experts": 6, "head_dim": 8},
    "olmoe": {"num_experts": 6},
    "gpt_oss": {"num_local_experts": 6, "head_dim": 8, "sliding_window": 6},
    "deepseek_v3": {
        "num_hidden_layers": 3, "num_key_value_heads": 8, "n_routed_experts": 8, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    },
    "granitemoe": {"num_local_experts": 6},
    "llama4_text": {
        "num_local_experts": 6, "num_experts_per_tok": 1, "head_dim": 8,
        "intermediate_size_mlp": 64,
    },
    "phimoe": {"num_local_experts": 6},
}  # fmt: skip
"""Families with 6 or 8 routed experts; a token goes to 2 of them, except where one is given."""

_WITHOUT_KV_HEADS = frozenset({"opt", "bert", "vit", "gpt2", "bloom", "gpt_neox", "falcon"})

FAMILIES = tuple(_OVERRIDES)
"""The names of models without experts that `tiny_config` knows."""

EXPERT_FAMILIES = tuple(_EXPERTS)
"""The names of models with experts that `tiny_config` knows."""


def tiny_config(name: str, **changes: Any) -> Any:
    """Return a tiny configuration of a family of transformers, with changes."""
    from transformers import CONFIG_MAPPING

    if name in _EXPERTS:
        chosen = {"moe_intermediate_size": 48, "num_experts_per_tok": 2, **_EXPERTS[name]}
    else:
        chosen = _OVERRIDES[name]
    content = {**_PLAIN, **chosen, **changes}
    if name in _WITHOUT_KV_HEADS:
        content.pop("num_key_value_heads")
    return CONFIG_MAPPING[name](**{k: v for k, v in content.items() if v is not None})


def tiny_model(name: str, seed: int = 0, attention: str = "eager", **changes: Any) -> nn.Module:
    """Return the model of `tiny_config` in float64 with random weights and buffers."""
    from parframe.loading.huggingface import find_model_class

    config = tiny_config(name, **changes)
    model = find_model_class(config)._from_config(
        config, attn_implementation=attention, experts_implementation="eager"
    )
    return randomize(model.double(), seed).eval()


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Set distinct random weights of both signs: vectors around 1, matrices around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(drawn * scale + (1.0 if parameter.dim() < 2 else 0.0))
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_var is not None:
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
    return module


def tokens(batch: int, sequence: int, vocab: int = 128, seed: int = 0) -> torch.Tensor:
    """Return random token ids without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab, (batch, sequence), generator=generator)


class Bottleneck(nn.Module):
    """Two convolutions with a residual connection; a stride of 2 halves the image."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels == out
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride), nn.BatchNorm2d(out))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    """A small residual network for images."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2)
        self.stages = nn.Sequential(
            Bottleneck(width, width, 1),
            Bottleneck(width, width, 1),
            Bottleneck(width, 2 * width, 2),
            Bottleneck(2 * width, 2 * width, 1),
        )
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(2 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.stem(image))))
        return self.classify(self.average(self.stages(x)).flatten(1))


def resnet(seed: int = 0) -> nn.Module:
    """Return a small ResNet in float64."""
    return randomize(ResNet().double(), seed).eval()


class MLP(nn.Module):
    """Feed-forward layers between two projections."""

    def __init__(self, width: int = 16, hidden: int = 48, layers: int = 3) -> None:
        super().__init__()
        self.into = nn.Linear(12, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(),
                          nn.Linear(hidden, width))
            for _ in range(layers)
        )  # fmt: skip
        self.out = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.into(x)
        for layer in self.layers:
            x = x + layer(x)
        return {"scores": self.out(x), "hidden": (x,)}


def mlp(seed: int = 0) -> nn.Module:
    """Return a small MLP in float64."""
    return randomize(MLP().double(), seed).eval()


PLAIN: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "resnet": (resnet, {"image": (3, 3, 16, 16)}),
    "mlp": (mlp, {"x": (3, 12)}),
}
"""Models of plain PyTorch: functions that make them, and the shapes of their inputs."""


class Float64Mode(TorchDispatchMode):
    """Mode in which casts to narrower floating-point dtypes become casts to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_widen, (args, kwargs or {}))
        return func(*args, **kwargs)


def _widen(value: Any) -> Any:
    narrow = isinstance(value, torch.dtype) and value in (torch.float32, torch.bfloat16)
    return torch.float64 if narrow else value


def reference_outputs(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Any:
    """Return a model's outputs, computed in float64 throughout."""
    with torch.no_grad(), Float64Mode():
        return model(**inputs)
