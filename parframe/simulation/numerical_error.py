"""How far a tensor is from what it should be."""

from __future__ import annotations

import torch


def error(found: torch.Tensor, expected: torch.Tensor, scale: float) -> float:
    """The largest difference, relative to a scale; infinite where they cannot be compared.

    Numbers that are not finite, or the least and greatest of their dtype, must be equal; so must
    integers and truth values.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not found.numel():
        return 0.0
    if not (found.is_floating_point() or found.is_complex()):
        return 0.0 if torch.equal(found, expected) else float("inf")
    plain = _plain(expected)
    same = torch.where(plain, True, (found == expected) | (found.isnan() & expected.isnan()))
    if not bool(same.all()) or not bool(found[plain].isfinite().all()):
        return float("inf")
    apart = (found[plain] - expected[plain]).abs()
    largest = float(apart.max()) if apart.numel() else 0.0
    return largest / scale if largest else 0.0


def scale_of(expected: torch.Tensor) -> float:
    """The largest plain number of a tensor, without its sign; 1 where there is none."""
    if not (expected.is_floating_point() or expected.is_complex()):
        return 1.0
    plain = expected[_plain(expected)].abs()
    return (float(plain.max()) if plain.numel() else 0.0) or 1.0


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.abs() < torch.finfo(tensor.dtype).max / 4
