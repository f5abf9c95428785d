"""Times of kernels on a device with measured speeds."""

from __future__ import annotations

from parframe.errors import ParframeError
from parframe.hardware import Device, Speeds
from parframe.price.cost.attention_times import DECODE_MAX_NEW_TOKENS
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Attention, Experts, Kernel, Pointwise, Product, Step


def measured_timer(kernel: Kernel, device: Device, dtypes: Dtypes) -> Timer:
    """Return the timer of all ``count`` of a kernel.

    The launch overhead of kernels is not included: it is part of the engine's overhead for a layer,
    which was measured with all kernels of a layer.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if the device was not measured in the dtype.
    """
    dtype = dtypes.plain(device.rates)
    known = {operator: _speeds(device, operator, dtype) for operator in device.measured}

    def seconds(step: Step) -> float:
        size, amount, operator = _asked(kernel, step)
        return amount / known[operator].at(size) * kernel.count if amount else 0.0

    return Timer(seconds, max(known[operator].log_std for operator in _operators(kernel)))


def _operators(kernel: Kernel) -> tuple[str, ...]:
    """Return the measured operators that a kernel may use."""
    if isinstance(kernel, Attention):
        return "decode", "prompt"
    return ("pointwise",) if isinstance(kernel, Pointwise) else ("product",)


def _asked(kernel: Kernel, step: Step) -> tuple[float, float, str]:
    """Return the size that determines a kernel's speed, its amount, and its measured operator."""
    if isinstance(kernel, Product):
        rows = step.count(kernel.per) * kernel.share
        return rows, kernel.inner * kernel.columns * (rows > 0), "product"
    if isinstance(kernel, Experts):
        tokens = step.count("token") * kernel.share
        missed = (1 - kernel.top_k / kernel.experts) ** tokens
        touched = kernel.local_experts * (1 - missed)
        visits = tokens * kernel.top_k * kernel.local_experts / kernel.experts
        rows = max(visits / touched, 1.0) if touched else 0.0
        return rows, touched * kernel.matrices * kernel.hidden * kernel.ffn, "product"
    if isinstance(kernel, Pointwise):
        moved = kernel.elements * (step.count(kernel.per) * kernel.share)
        return moved, moved, "pointwise"
    return _attention(kernel, step)


def _attention(kernel: Attention, step: Step) -> tuple[float, float, str]:
    rows, keys = step.sequences * kernel.share, step.cached_tokens + step.new_tokens
    if kernel.window is not None:
        keys = min(keys, kernel.window + step.new_tokens - 1)
    keys *= kernel.position_share
    if step.new_tokens <= DECODE_MAX_NEW_TOKENS:
        return keys, rows * keys * kernel.cache_width, "decode"
    width = kernel.key_width + kernel.value_width
    return step.new_tokens, rows * step.new_tokens * keys * kernel.heads * width, "prompt"


def _speeds(device: Device, operator: str, dtype: str) -> Speeds:
    known = device.measured[operator]
    if dtype not in known:
        raise ParframeError(
            "hardware",
            device.name,
            f"has no measured speed of {operator} in {dtype}",
            f"use one of {', '.join(known)}, or measure the device in this dtype",
        )
    return known[dtype]
