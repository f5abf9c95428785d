"""Sizes that memory and communication are counted for, and bytes of tensors at these sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from parframe.checking.samples import evaluate_size, graph_symbols
from parframe.errors import ParframeError
from parframe.graph import BYTES, Tensor
from parframe.plan import Plan
from parframe.sizes import Size

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


@attrs.frozen
class MemorySizes:
    """Sizes and dtype that memory is counted for.

    - ``values``: the value of every symbol of the model.
    """

    values: Mapping[str, int]
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in sorted(self.values.items()))
        return f"memory is counted for {sizes or 'the given shapes'}, in {self.dtype}"


def memory_sizes(
    plan: Plan, dtype: str | None = None, batch: int | None = None, sequence: int | None = None
) -> MemorySizes:
    """Return the sizes that memory is counted for.

    By default, one row for each share of the batch, 1024 positions, and bfloat16.

    Raises
    ------
    ParframeError
        Of kind ``usage``, for an unknown dtype or a size below one.
    """
    if dtype is not None and dtype not in BYTES:
        raise ParframeError("usage", f"dtype {dtype!r}", "unknown dtype", "use bfloat16 or float32")
    for name, size in (("batch", batch), ("sequence", sequence)):
        if size is not None and size < 1:
            raise ParframeError("usage", f"{name} {size}", "too small", "use at least 1")
    axes = plan.placing.axes("batch")
    rows = math.lcm(*(sum(mesh.ratio(axes)) for mesh in plan.mesh.submeshes))
    values = dict.fromkeys(graph_symbols(plan.graph), 1)
    if "batch" in values:
        values["batch"] = batch or rows
    if "sequence" in values:
        values["sequence"] = sequence or 1024
    return MemorySizes(values, dtype or "bfloat16")


def symbol_values(plan: Plan, rank: int, sizes: MemorySizes) -> dict[str, int]:
    """Return the value of every symbol on a device."""
    values = dict(sizes.values)
    for name, size in plan.devices[rank].bindings.items():
        values[name] = evaluate_size(size, sizes.values)
    return values


def tensor_bytes(
    tensor: Tensor, values: Mapping[str, int], dtype: str, known: dict[Size, int]
) -> int:
    """Return the bytes of a tensor; floating-point ones have the dtype ``dtype``.

    ``known`` is a cache of sizes.
    """
    count = 1
    for size in tensor.shape:
        if not isinstance(size, int) and size not in known:
            known[size] = evaluate_size(size, values)
        count *= size if isinstance(size, int) else known[size]
    return int(count * element_bytes(tensor, dtype))


def element_bytes(tensor: Tensor, dtype: str) -> float:
    """Return the bytes of one element; floating-point ones have the dtype ``dtype``."""
    return BYTES[dtype] if tensor.dtype in _FLOATS else BYTES[tensor.dtype]
