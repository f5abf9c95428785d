"""The compiled form of a device's module, for steps whose shapes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parframe.runtime.rank_module import RankModule

_ON_CPU: Mapping[str, Any] = {
    # PyTorch forbids fused multiply-add unless told; products of a few rows gain by it.
    "cpp.enable_floating_point_contract_flag": "fast",
    # A loop that reads several weights in turn gets half of the memory's speed.
    "cpp.max_horizontal_fusion_size": 1,
}


def compiled(module: RankModule) -> Callable[..., dict[str, torch.Tensor]]:
    """Compile a module as one graph, in which equal layers are compiled once.

    Parameters
    ----------
    module
        The module; its weights and what it is made of must not be exchanged any more.

    Returns
    -------
    callable
        Called as the module is.
    """
    found: Callable[..., dict[str, torch.Tensor]] = torch.compile(
        module, fullgraph=True, options=options(module.device.type)
    )
    return found


def options(device: str) -> dict[str, Any]:
    """Give the options of `torch.compile` for a type of device."""
    return {
        # Parts of the module never change, so that they are not looked at again with every token.
        "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
        **(_ON_CPU if device == "cpu" else {}),
    }
