"""Rows that a mask selects, and their count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from parframe.loading.dense_indexing.rowwise_functions import SelectionError


@attrs.frozen(eq=False)
class RowSelection:
    """Rows at which a mask is true."""

    mask: Tensor
    groups: Any = None  # the selections of all groups, if this is one group of split rows


@attrs.frozen(eq=False)
class RowCount:
    """Number of selected rows, which can only be compared with 0."""

    empty: bool

    def __eq__(self, other: object) -> bool:
        return self._compare(other, self.empty)

    def __ne__(self, other: object) -> bool:
        return self._compare(other, not self.empty)

    def __gt__(self, other: object) -> bool:
        return self._compare(other, not self.empty)

    def __bool__(self) -> bool:
        return not self.empty

    __hash__ = None  # type: ignore[assignment]

    def _compare(self, other: object, answer: bool) -> bool:
        if other != 0:
            raise SelectionError(
                "the number of selected rows is compared with a number other than 0"
            )
        return answer


def expand_rows(tensor: Tensor, mask: Tensor, dims: Sequence[int]) -> Tensor:
    """Return one row for every element of a mask, whose `dims` the leading dims stand for."""
    for own, dim in enumerate(dims):
        if tensor.shape[own] != mask.shape[dim]:
            raise SelectionError("rows are taken from a tensor of another size than the mask")
    if len(set(dims)) != len(dims):
        raise SelectionError("the same indices are used for two dims")
    rest = tensor.shape[len(dims) :]
    order = sorted(range(len(dims)), key=lambda own: dims[own])
    if order != list(range(len(dims))):
        tensor = tensor.permute(*order, *range(len(dims), tensor.dim()))
    sizes = [size if dim in dims else 1 for dim, size in enumerate(mask.shape)]
    whole = tensor.reshape(*sizes, *rest).expand(*mask.shape, *rest)
    return whole.reshape(mask.numel(), *rest).clone()


def restore_dims(rows: Tensor, mask: Tensor) -> Tensor:
    """Reshape rows to have the dims of the mask in place of their first."""
    return rows.reshape(*mask.shape, *rows.shape[1:])


def align_mask(mask: Tensor, tensor: Tensor) -> Tensor:
    """Reshape a mask to the number of dims of the tensor that it masks."""
    return mask.reshape(*mask.shape, *(1,) * (tensor.dim() - mask.dim()))
