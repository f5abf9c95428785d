"""Numerical error of a tensor against its reference."""

from __future__ import annotations

import torch


def relative_error(actual: torch.Tensor, expected: torch.Tensor, scale: float) -> float:
    """Return the largest absolute difference divided by a scale; see `find_scale`.

    Infinities, NaNs and values near the limits of the dtype must be equal, and so must integers and
    booleans; otherwise the error is infinite. It is also infinite for tensors of different shapes
    or dtypes.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if not actual.numel():
        return 0.0
    if not (actual.is_floating_point() or actual.is_complex()):
        return 0.0 if torch.equal(actual, expected) else float("inf")
    ordinary = _is_ordinary(expected)
    same = torch.where(ordinary, True, (actual == expected) | (actual.isnan() & expected.isnan()))
    if not bool(same.all()) or not bool(actual[ordinary].isfinite().all()):
        return float("inf")
    absolute = (actual[ordinary] - expected[ordinary]).abs()
    largest = float(absolute.max()) if absolute.numel() else 0.0
    return largest / scale if largest else 0.0


def find_scale(expected: torch.Tensor) -> float:
    """Return the largest absolute value of the ordinary numbers of a tensor; 1 without any.

    Infinities, NaNs and values near the limits of the dtype, such as those of masks, do not count.
    """
    if not (expected.is_floating_point() or expected.is_complex()):
        return 1.0
    absolute = expected[_is_ordinary(expected)].abs()
    return (float(absolute.max()) if absolute.numel() else 0.0) or 1.0


def _is_ordinary(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.abs() < torch.finfo(tensor.dtype).max / 4
