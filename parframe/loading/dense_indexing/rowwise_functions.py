"""Row-wise functions: functions of PyTorch that compute each row from the same row only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class SelectionError(Exception):
    """Use of selected rows that cannot be computed with all rows."""


_POINTWISE = frozenset(
    (
        "abs", "add", "bfloat16", "celu", "clamp", "clone", "contiguous", "cos", "detach", "div",
        "double", "elu", "erf", "exp", "float", "gelu", "half", "hardsigmoid", "hardswish",
        "hardtanh", "leaky_relu", "log", "maximum", "minimum", "mish", "mul", "multiply", "neg",
        "pow", "radd", "rdiv", "reciprocal", "relu", "relu6", "rmul", "rpow", "rsqrt", "rsub",
        "selu", "sigmoid", "silu", "sin", "softplus", "sqrt", "square", "sub", "subtract", "tanh",
        "to", "true_divide", "type", "type_as",
    )
)  # fmt: skip
"""Functions that compute each element on its own, by the names of their operators."""

_NORMS = frozenset(("layer_norm", "rms_norm"))
_SHAPES = frozenset(("view", "reshape"))
_PARTS = frozenset(("chunk", "split", "softmax"))


def property_of(func: Any) -> str:
    """Return the name of the property that a getter reads, or of the function."""
    name = func.__name__
    return str(func.__self__.__name__) if name == "__get__" else str(name)


def is_rowwise(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    selected: Sequence[Tensor],
    others: Sequence[Tensor],
) -> bool:
    """Return whether a call computes each row of its result from the same row of its arguments.

    The tensors of the call are those that have rows of the selection, and the others.
    """
    name = func.__name__.strip("_")
    first = selected[0].dim()
    if func.__name__.endswith("_") and not func.__name__.endswith("__"):
        return False  # an in-place function, whose argument may be used elsewhere
    if name in _POINTWISE:
        aligned = all(tensor.dim() == first for tensor in selected)
        return aligned and all(_is_shared(tensor, first) for tensor in others)
    if len(selected) != 1 or not args or args[0] is not selected[0]:
        return False
    if name in ("linear", "matmul"):
        return first > 1 and all(tensor.dim() <= 2 for tensor in others)
    if name in _NORMS:
        return len(_argument(args, kwargs, 1, "normalized_shape", ())) < first
    if name == "dropout":
        return not _argument(args, kwargs, 2, "training", True)
    if name in _PARTS:
        place = 1 if name == "softmax" else 2
        return bool(_argument(args, kwargs, place, "dim", 0) % first)
    if name == "unsqueeze":
        return _argument(args, kwargs, 1, "dim", 0) not in (0, -first - 1)
    if name == "getitem":
        return _keeps_rows(args[1], first)
    return name in _SHAPES


def _is_shared(tensor: Tensor, dims: int) -> bool:
    """Return whether a tensor broadcasts over the rows of another with so many dims."""
    one = tensor.dim() == dims and isinstance(tensor.shape[0], int) and tensor.shape[0] == 1
    return tensor.dim() < dims or one


def _argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return kwargs.get(name, args[place] if len(args) > place else default)


def _keeps_rows(key: Any, dims: int) -> bool:
    """Return whether an index leaves the first dim unchanged."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, Tensor) for part in parts):
        return False
    if parts[0] is Ellipsis:
        return sum(part is not None for part in parts[1:]) < dims
    return isinstance(parts[0], slice) and parts[0] == slice(None)
