"""The time of a kernel on a device that was measured by itself: its amount over its speed."""

from __future__ import annotations

from parframe.errors import ParframeError
from parframe.hardware import Device, Speeds
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Attention, Experts, Kernel, Pointwise, Product, Step

ONE_BY_ONE = 16
"""New positions of a row up to which attention is that of a step of decoding."""


def measured_timer(kernel: Kernel, device: Device, dtypes: Dtypes) -> Timer:
    """Return what tells how long a device takes for all ``count`` of a kernel.

    What a kernel takes apart from its size is no part of it: it is in what the engine takes for a
    layer, which was measured with all of a layer's kernels.

    Parameters
    ----------
    kernel
        What is computed.
    device
        One with `parframe.hardware.Device.measured`.
    dtypes
        Of weights, cache and arithmetic.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if it was not measured in the dtype.
    """
    dtype = dtypes.plain(device.rates)
    known = {operator: _speeds(device, operator, dtype) for operator in device.measured}

    def seconds(step: Step) -> float:
        size, amount, operator = _asked(kernel, step)
        return amount / known[operator].at(size) * kernel.count if amount else 0.0

    return Timer(seconds, max(known[operator].log_std for operator in _operators(kernel)))


def _operators(kernel: Kernel) -> tuple[str, ...]:
    """What a kernel may be measured as."""
    if isinstance(kernel, Attention):
        return "decode", "prompt"
    return ("pointwise",) if isinstance(kernel, Pointwise) else ("product",)


def _asked(kernel: Kernel, step: Step) -> tuple[float, float, str]:
    """The size by which a kernel's speed goes, how much of it there is, and the operator."""
    if isinstance(kernel, Product):
        rows = _times(kernel, step)
        return rows, kernel.inner * kernel.columns * (rows > 0), "product"
    if isinstance(kernel, Experts):
        tokens = step.sequences * step.new_tokens * kernel.share
        missed = (1 - kernel.top_k / kernel.experts) ** tokens
        touched = kernel.local_experts * (1 - missed)
        visits = tokens * kernel.top_k * kernel.local_experts / kernel.experts
        rows = max(visits / touched, 1.0) if touched else 0.0
        return rows, touched * kernel.matrices * kernel.hidden * kernel.ffn, "product"
    if isinstance(kernel, Pointwise):
        moved = kernel.elements * _times(kernel, step)
        return moved, moved, "pointwise"
    return _attention(kernel, step)


def _attention(kernel: Attention, step: Step) -> tuple[float, float, str]:
    rows, keys = step.sequences * kernel.share, step.cached_tokens + step.new_tokens
    if kernel.window is not None:
        keys = min(keys, kernel.window + step.new_tokens - 1)
    keys *= kernel.position_share
    if step.new_tokens <= ONE_BY_ONE:
        return keys, rows * keys * kernel.cache_width, "decode"
    width = kernel.key_width + kernel.value_width
    return step.new_tokens, rows * step.new_tokens * keys * kernel.heads * width, "prompt"


def _times(kernel: Product | Pointwise, step: Step) -> float:
    rows = step.sequences * step.new_tokens if kernel.per == "token" else step.sequences
    return rows * kernel.share


def _speeds(device: Device, operator: str, dtype: str) -> Speeds:
    known = device.measured[operator]
    if dtype not in known:
        raise ParframeError(
            "hardware",
            device.name,
            f"its {operator}s were not measured in {dtype}",
            f"use one of {', '.join(known)}, or measure it in this dtype",
        )
    return known[dtype]
