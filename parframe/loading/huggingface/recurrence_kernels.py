"""Kernels of state-space and linear-attention layers, computed by parframe's recurrence.

The inner loop of such a layer is a function of transformers that replaces a kernel of a known name
with known arguments (``selective_scan_fn`` of mamba-ssm, ``chunk_gated_delta_rule`` of fla, ...)
where the kernel is not installed. It loops over the sequence, whose length is symbolic in an
export. While a model is exported, each of these functions is a few operators around `recurrence`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parframe.loading.huggingface.registries import IGNORED_ARGUMENTS
from parframe.ops.recurrence import recurrence


class UnsupportedKernelError(Exception):
    """Call of a kernel that the recurrence does not support."""


@contextmanager
def replace_kernels(model: torch.nn.Module) -> Iterator[None]:
    """Compute the kernels in a model's code by parframe's recurrence while the context lasts."""
    files = {sys.modules[type(part).__module__] for part in model.modules()}
    replaced = [
        (file, name, value, KERNELS[kernel])
        for file in files
        for name, value in vars(file).items()
        if isinstance(value, FunctionType) and (kernel := _kernel_of(value)) in KERNELS
    ]
    try:
        for file, name, _, replacement in replaced:
            setattr(file, name, replacement)
        yield
    finally:
        for file, name, original, _ in replaced:
            setattr(file, name, original)


def _kernel_of(function: FunctionType) -> str:
    """Return the name of the kernel that a function of transformers replaces, or ``""``."""
    if not hasattr(function, "__wrapped__"):
        return ""
    return str(inspect.getclosurevars(function).nonlocals.get("func_name", ""))


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that the recurrence does not support: initial states, packed sequences."""
    for name, value in arguments.items():
        if value is not None and value is not False and name not in IGNORED_ARGUMENTS:
            raise UnsupportedKernelError(f"a recurrence with the argument {name!r}")


def _delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 0,
    use_qk_l2norm_in_kernel: bool = False,
    scale: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute the gated delta rule, with a decay for each head or for each row of its state."""
    _check_arguments(rest)
    dtype = query.dtype
    query, key, value, g, beta = (part.float() for part in (query, key, value, g, beta))
    if use_qk_l2norm_in_kernel:
        query, key = _unit(query), _unit(key)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    decay = g.unsqueeze(-1) if g.dim() == 3 else g
    return recurrence(query, key, value, decay, beta).to(dtype), None


def _unit(vectors: Tensor) -> Tensor:
    return vectors * torch.rsqrt((vectors * vectors).sum(-1, keepdim=True) + 1e-6)


def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803  # the kernel's own names
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    use_mambapy: bool = False,
    use_associative_scan: bool = False,
    **rest: Any,
) -> Tensor:
    """Compute Mamba's scan, in which every channel has its own state."""
    _check_arguments({**rest, "return_last_state": return_last_state})
    dtype = u.dtype
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)[:, None]
    if delta_softplus:
        delta = functional.softplus(delta)
    step = delta.transpose(1, 2)
    value = (step * u.transpose(1, 2)).float().unsqueeze(-1)
    key, query = (part.transpose(1, 2).unsqueeze(2).float() for part in (B, C))
    scanned = recurrence(query, key, value, step.unsqueeze(-1) * A, None)
    result: Tensor = scanned.squeeze(-1).transpose(1, 2).to(dtype)
    if D is not None:
        result = result + u * D[:, None]
    return result if z is None else result * functional.silu(z)


def _chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    chunk_size: int,
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    **rest: Any,
) -> Tensor:
    """Compute Mamba 2's scan: every head has its own state, and groups of heads share B and C."""
    _check_arguments({**rest, "z": z})
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = functional.softplus(dt)
    step = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1]).float()
    x, B, C = x.float(), B.float(), C.float()  # noqa: N806
    decay = (A.float() * step).unsqueeze(-1)
    result: Tensor = recurrence(C, B, x * step.unsqueeze(-1), decay, None)
    return result if D is None else result + D[:, None] * x


KERNELS: Mapping[str, Callable[..., Any]] = {
    "chunk_gated_delta_rule": _delta_rule,
    "fused_recurrent_gated_delta_rule": _delta_rule,
    "chunk_kda": _delta_rule,
    "fused_recurrent_kda": _delta_rule,
    "selective_scan_fn": _selective_scan,
    "mamba_chunk_scan_combined": _chunk_scan,
}
"""Functions that compute kernels, by the kernels' names."""
