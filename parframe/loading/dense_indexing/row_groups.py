"""Groups of consecutive rows, as many in each as a tensor says: split, and joined again.

What is read of counts that are computed stands for them, and only tells where to split. Every part
then has all rows, and is a selection of those between two cumulative sums. Where the counts are not
of all rows, the model fails, and what is computed for it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from parframe.loading.dense_indexing.row_selection import Selection, beside
from parframe.loading.dense_indexing.rowwise_functions import SelectionError


@attrs.frozen(eq=False, repr=False)
class Size:
    """How many rows a group has, which is not told."""

    count: Tensor

    def _refuse(self, *_: Any) -> Any:
        raise SelectionError("a number in a tensor is used for more than to split rows")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = __repr__ = _refuse
    __int__ = __index__ = __float__ = __neg__ = __abs__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse


class Groups:
    """Follows the counts of rows in groups, and rows that are split by them.

    Parameters
    ----------
    rows
        The selection of every tensor that has the rows of one.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._counts: Any = WeakIdKeyDictionary()  # the elements of tensors that were taken apart

    def called(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """Elements or sizes read, rows split or joined; None of any other call."""
        name = func.__name__
        if name == "unbind" and _are_counts(given[0]) and given[0] not in self._rows:
            elements = func(*args, **kwargs)
            for element in elements:
                self._counts[element] = True
            return elements
        if name == "item" and given[0] in self._counts:
            return Size(given[0].clone())  # the model may write another number there
        if any(isinstance(leaf, Size) for leaf in tree_leaves((args, kwargs))):
            sizes = args[1] if name == "split" and len(args) > 1 else ()
            if not _are_sizes(sizes) or not _along_rows(args[2:], kwargs, given):
                raise SelectionError(f"{name} by numbers in a tensor")
            return self._split(given[0], sizes)
        if name in ("cat", "concat", "concatenate"):
            parts = [self._rows.get(leaf) for leaf in given]
            together = next((part.parts for part in parts if part is not None), None)
            if together is None:
                return None
            if parts != together or not _along_rows(args[1:], kwargs, given):
                raise SelectionError(f"{name} of other than all groups of rows in order")
            return _joined(given, parts)
        return None

    def _split(self, rows: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """All rows for each group."""
        if rows in self._rows:
            raise SelectionError("the rows of a selection are split into groups")
        parts = _parts(rows, sizes)
        groups = tuple(rows.view_as(rows) for _ in parts)
        for group, part in zip(groups, parts, strict=True):
            self._rows[group] = part
        return groups


def _are_counts(counts: Tensor) -> bool:
    """Whether a tensor may say how many rows each of some groups has."""
    whole = not (counts.dtype.is_floating_point or counts.dtype.is_complex)
    return whole and counts.dtype != torch.bool and counts.dim() == 1


def _are_sizes(sizes: Any) -> bool:
    """Whether these are sizes of groups, and nothing else."""
    listed = isinstance(sizes, list | tuple) and len(sizes) > 0
    return listed and all(isinstance(size, Size) for size in sizes)


def _parts(rows: Tensor, sizes: Sequence[Size]) -> list[Selection]:
    """For each of some groups, which of the rows are in it."""
    places = torch.arange(rows.shape[0], device=rows.device)
    parts: list[Selection] = []
    start: Any = 0
    for size in sizes:
        end = start + size.count.long()
        parts.append(Selection((places >= start) & (places < end), parts))
        start = end
    return parts


def _joined(groups: Sequence[Tensor], parts: Sequence[Selection]) -> Tensor:
    """The rows of all groups, each from its own."""
    whole = groups[0].clone()
    for rows, part in zip(groups[1:], parts[1:], strict=True):
        if rows.shape[1:] != whole.shape[1:]:
            raise SelectionError("groups of rows of different sizes are joined")
        whole = torch.where(beside(part.mask, rows), rows, whole)
    return whole


def _along_rows(args: Sequence[Any], kwargs: Mapping[str, Any], given: Sequence[Tensor]) -> bool:
    """Whether a call on these tensors is told the first axis, or nothing."""
    named = {"dim": args[0] if args else 0, **kwargs}
    return named.keys() == {"dim"} and named["dim"] in (0, -given[0].dim())
