"""Groups of consecutive rows, split by counts that a tensor contains, and concatenated again.

A count that the model's code reads becomes a `GroupSize`, which can only be used to split rows.
Every group then has all rows, and is the selection of those between two cumulative sums. Where the
counts do not add up to all rows, the model itself fails, and the graph's result is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from parframe.loading.dense_indexing.row_selection import RowSelection, align_mask
from parframe.loading.dense_indexing.rowwise_functions import SelectionError


@attrs.frozen(eq=False, repr=False)
class GroupSize:
    """Number of rows of a group, whose value is not known at export."""

    count: Tensor

    def _refuse(self, *_: Any) -> Any:
        raise SelectionError("a number read from a tensor is used for other than splitting rows")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = __repr__ = _refuse
    __int__ = __index__ = __float__ = __neg__ = __abs__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse


class RowGroups:
    """Tracker of the sizes of groups, and of rows split by them; `rows` has their selections."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._counts: Any = WeakIdKeyDictionary()  # the elements of unbound tensors of counts

    def call(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """Compute a call that reads sizes, or splits or concatenates rows; None for any other."""
        name = func.__name__
        if name == "unbind" and _are_counts(given[0]) and given[0] not in self._rows:
            elements = func(*args, **kwargs)
            for element in elements:
                self._counts[element] = True
            return elements
        if name == "item" and given[0] in self._counts:
            return GroupSize(given[0].clone())  # the model may change the tensor later
        if any(isinstance(leaf, GroupSize) for leaf in tree_leaves((args, kwargs))):
            sizes = args[1] if name == "split" and len(args) > 1 else ()
            if not _are_sizes(sizes) or not _is_along_rows(args[2:], kwargs, given):
                raise SelectionError(f"{name} by numbers read from a tensor")
            return self._split(given[0], sizes)
        if name in ("cat", "concat", "concatenate"):
            selections = [self._rows.get(leaf) for leaf in given]
            groups = next((each.groups for each in selections if each is not None), None)
            if groups is None:
                return None
            if selections != groups or not _is_along_rows(args[1:], kwargs, given):
                raise SelectionError(f"{name} of other than all groups of rows in order")
            return _concatenate(given, selections)
        return None

    def _split(self, rows: Tensor, sizes: Sequence[GroupSize]) -> tuple[Tensor, ...]:
        """Return all rows once for each group."""
        if rows in self._rows:
            raise SelectionError("selected rows are split into groups")
        selections = _group_selections(rows, sizes)
        groups = tuple(rows.view_as(rows) for _ in selections)
        for group, selection in zip(groups, selections, strict=True):
            self._rows[group] = selection
        return groups


def _are_counts(counts: Tensor) -> bool:
    """Return whether a tensor may contain the sizes of groups."""
    integers = not (counts.dtype.is_floating_point or counts.dtype.is_complex)
    return integers and counts.dtype != torch.bool and counts.dim() == 1


def _are_sizes(sizes: Any) -> bool:
    """Return whether an argument is a list of sizes of groups only."""
    is_list = isinstance(sizes, list | tuple) and len(sizes) > 0
    return is_list and all(isinstance(size, GroupSize) for size in sizes)


def _group_selections(rows: Tensor, sizes: Sequence[GroupSize]) -> list[RowSelection]:
    """Return the selection of the rows of each group."""
    indices = torch.arange(rows.shape[0], device=rows.device)
    selections: list[RowSelection] = []
    start: Any = 0
    for size in sizes:
        end = start + size.count.long()
        selections.append(RowSelection((indices >= start) & (indices < end), selections))
        start = end
    return selections


def _concatenate(groups: Sequence[Tensor], selections: Sequence[RowSelection]) -> Tensor:
    """Return all rows, each from its group."""
    whole = groups[0].clone()
    for rows, selection in zip(groups[1:], selections[1:], strict=True):
        if rows.shape[1:] != whole.shape[1:]:
            raise SelectionError("groups with rows of different shapes are concatenated")
        whole = torch.where(align_mask(selection.mask, rows), rows, whole)
    return whole


def _is_along_rows(args: Sequence[Any], kwargs: Mapping[str, Any], given: Sequence[Tensor]) -> bool:
    """Return whether a call on tensors names the first dim, or none."""
    named = {"dim": args[0] if args else 0, **kwargs}
    return named.keys() == {"dim"} and named["dim"] in (0, -given[0].dim())
