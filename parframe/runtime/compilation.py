"""Compilation of a rank's module, for steps of constant shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parframe.runtime.rank_module import RankModule

_CPU_OPTIONS: Mapping[str, Any] = {
    # PyTorch disables fused multiply-add by default; products of a few rows are faster with it.
    "cpp.enable_floating_point_contract_flag": "fast",
    # A fused loop that reads several weights in turn gets half of the memory bandwidth.
    "cpp.max_horizontal_fusion_size": 1,
}


def compile_module(module: RankModule) -> Callable[..., dict[str, torch.Tensor]]:
    """Compile a module as one graph, in which equal layers are compiled once.

    Its submodules and weights must not be replaced afterwards.
    """
    compiled: Callable[..., dict[str, torch.Tensor]] = torch.compile(
        module, fullgraph=True, options=compile_options(module.device.type)
    )
    return compiled


def compile_options(device: str) -> dict[str, Any]:
    """Return the options of `torch.compile` for a type of device."""
    return {
        # Modules never change, so their guards need not be checked at every step.
        "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
        **(_CPU_OPTIONS if device == "cpu" else {}),
    }
