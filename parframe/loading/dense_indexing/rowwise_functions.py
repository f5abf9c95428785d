"""Which functions of PyTorch compute every row, along the first axis, of that row alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class SelectionError(Exception):
    """A model does something with a selection of rows that cannot be done with all of them."""


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
"""Functions of each element alone, with the plain name of their operators."""

_NORMS = frozenset(("layer_norm", "rms_norm"))
_SHAPES = frozenset(("view", "reshape"))
_PARTS = frozenset(("chunk", "split", "softmax"))


def property_of(func: Any) -> str:
    """The property that a getter reads, or a function's own name."""
    own = func.__name__
    return str(func.__self__.__name__) if own == "__get__" else str(own)


def is_rowwise(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    selected: Sequence[Tensor],
    others: Sequence[Tensor],
) -> bool:
    """Whether a call computes each row of its result of that row of some arguments.

    Parameters
    ----------
    func, args, kwargs
        The call.
    selected
        The tensors among its arguments that have these rows.
    others
        The other tensors, that have no rows.
    """
    name = func.__name__.strip("_")
    first = selected[0].dim()
    if func.__name__.endswith("_") and not func.__name__.endswith("__"):
        return False  # it writes into what others may look at
    if name in _POINTWISE:
        alike = all(tensor.dim() == first for tensor in selected)
        return alike and all(_is_shared(tensor, first) for tensor in others)
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


def _is_shared(tensor: Tensor, axes: int) -> bool:
    """Whether a tensor is the same for all rows of another of so many axes."""
    one = tensor.dim() == axes and isinstance(tensor.shape[0], int) and tensor.shape[0] == 1
    return tensor.dim() < axes or one


def _argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return kwargs.get(name, args[place] if len(args) > place else default)


def _keeps_rows(key: Any, axes: int) -> bool:
    """Whether an index leaves the first axis as it is."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, Tensor) for part in parts):
        return False
    if parts[0] is Ellipsis:
        return sum(part is not None for part in parts[1:]) < axes
    return isinstance(parts[0], slice) and parts[0] == slice(None)
