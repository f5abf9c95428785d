"""The rows that a mask selects: spread, put back, and how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from parframe.loading.dense_indexing.rowwise_functions import SelectionError


@attrs.frozen(eq=False)
class Selection:
    """The rows where a mask is true."""

    mask: Tensor
    parts: Any = None  # all of its kind, where it is a part of rows split into groups

    @property
    def count(self) -> Any:
        """How many rows there are, with those that are left out."""
        return self.mask.numel()


@attrs.frozen(eq=False)
class Count:
    """How many rows a selection has: told only whether there are any."""

    empty: bool

    def __eq__(self, other: object) -> bool:
        return self._compared(other, self.empty)

    def __ne__(self, other: object) -> bool:
        return self._compared(other, not self.empty)

    def __gt__(self, other: object) -> bool:
        return self._compared(other, not self.empty)

    def __bool__(self) -> bool:
        return not self.empty

    __hash__ = None  # type: ignore[assignment]

    def _compared(self, other: object, answer: bool) -> bool:
        if other != 0:
            raise SelectionError("the number of rows of a selection is compared with a number")
        return answer


def spread(tensor: Tensor, mask: Tensor, axes: Sequence[int]) -> Tensor:
    """A row for every element of a mask: leading axes of the tensor are these of the mask."""
    for own, axis in enumerate(axes):
        if tensor.shape[own] != mask.shape[axis]:
            raise SelectionError("rows of a tensor of another size than the mask")
    if len(set(axes)) != len(axes):
        raise SelectionError("the same places along two axes")
    rest = tensor.shape[len(axes) :]
    order = sorted(range(len(axes)), key=lambda own: axes[own])
    if order != list(range(len(axes))):
        tensor = tensor.permute(*order, *range(len(axes), tensor.dim()))
    sizes = [size if axis in axes else 1 for axis, size in enumerate(mask.shape)]
    whole = tensor.reshape(*sizes, *rest).expand(*mask.shape, *rest)
    return whole.reshape(mask.numel(), *rest).clone()


def unfolded(rows: Tensor, mask: Tensor) -> Tensor:
    """The rows along as many axes as the mask has."""
    return rows.reshape(*mask.shape, *rows.shape[1:])


def beside(mask: Tensor, whole: Tensor) -> Tensor:
    """The mask with as many axes as what it masks."""
    return mask.reshape(*mask.shape, *(1,) * (whole.dim() - mask.dim()))
