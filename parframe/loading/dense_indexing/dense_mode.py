"""Dense indexing: selections of rows by a mask, traced as all rows and the mask.

``x[mask]`` and ``x[torch.where(mask)]`` have a data-dependent number of rows. While a model is
exported in this mode, they have all rows. Row-wise functions compute all rows. Where rows are added
or written back, the mask leaves out those that are not selected. A loop over ``hit.nonzero()``
iterates over all indices, and ``hit`` masks what an iteration adds. Rows split by
``counts.tolist()`` are selections until all groups are concatenated. Any other use of a selection
is refused.

A model's code may test whether a selection is empty, and may count the iterations of a loop. The
result must not depend on that: `dense_export` traces the model once with all rows and once with
none, both times without writing rows back, and compares the two graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from parframe.loading.dense_indexing.row_groups import GroupSize, RowGroups
from parframe.loading.dense_indexing.row_selection import (
    RowCount,
    RowSelection,
    align_mask,
    expand_rows,
    restore_dims,
)
from parframe.loading.dense_indexing.rowwise_functions import (
    SelectionError,
    is_rowwise,
    property_of,
)


@attrs.frozen
class _Loop:
    """Iterable over the indices of a selection."""

    iterate: Callable[[], Iterator[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        return self.iterate()


class DenseIndexingMode(TorchFunctionMode):
    """Mode in which a selection keeps all rows.

    If `dropped`, no rows are added or written back. If `empty`, selections and loops over them also
    appear to be empty to the model's code.
    """

    def __init__(self, dropped: bool = False, empty: bool = False) -> None:
        super().__init__()
        self.used = False  # whether the model selects rows
        self.queried = False  # whether the model's code tests for rows, or loops over them
        self._dropped, self._empty = dropped, empty
        self._rows: Any = WeakIdKeyDictionary()  # the selection of tensors that have its rows
        self._groups = RowGroups(self._rows)
        self._indices: Any = WeakIdKeyDictionary()  # the selection and the dim of index tensors
        self._masks: Any = WeakIdKeyDictionary()  # the selection of each mask
        self._numbers: Any = WeakIdKeyDictionary()  # the contents of tensors, where known
        self._iterations: Any = WeakIdKeyDictionary()  # the iteration that made each tensor
        self._iteration: Tensor | None = None  # true where the model executes this iteration
        self._fails = False  # whether the model would fail in this iteration
        self._left_early = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.check_outside(given)
        written = self._write_back(func, args, kwargs)
        if written is not None:
            return written
        result = self._call(func, args, kwargs, given)
        if self._iteration is not None:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor) and not any(leaf is each for each in given):
                    self._iterations[leaf] = self._iteration
        return result

    def check_outside(self, tensors: Sequence[Tensor]) -> None:
        """Refuse the use of a tensor outside the iteration that made it."""
        if self._left_early:
            raise SelectionError("a loop over a selection ends before its last iteration")
        for tensor in tensors:
            if self._iterations.get(tensor, self._iteration) is not self._iteration:
                raise SelectionError(
                    "a value computed in a loop over a selection is used outside its iteration"
                )

    def check_result(self, result: Any) -> None:
        """Refuse a model's result that is a selection."""
        leaves = tree_leaves(result)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.check_outside(tensors)
        sizes = any(isinstance(leaf, GroupSize) for leaf in leaves)
        if sizes or any(leaf in self._rows or leaf in self._indices for leaf in tensors):
            raise SelectionError("the model returns a selection")

    def _call(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """Compute a call that writes no rows back."""
        name = func.__name__
        if name == "nonzero" or (name == "where" and len(given) == 1 and len(args) == 1):
            as_tuple = name == "where" or kwargs.get("as_tuple", False)
            return self._select(given[0], as_tuple)
        if name in ("__getitem__", "item", "__int__", "__index__", "tolist"):
            number = self._read_known(name, args)
            if number is not None:
                return number
        if name == "__getitem__":
            args = (args[0], self._numeric_key(*args))
            if self._is_selection(args[1]):
                return self._take_rows(*args)
            given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if name == "unbind" and given[0] in self._indices and args[1:] in ((), (0,)):
            return self._loop(given[0])
        if name == "numel" and given[0] in self._indices:
            self.queried = True
            return RowCount(self._empty)
        if any(leaf in self._indices for leaf in given) and not _is_metadata(func):
            raise SelectionError(f"{name} of the indices of a selection")
        return self._call_on_rows(func, args, kwargs, given)

    def _call_on_rows(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """Compute a call that may have selected rows among its arguments."""
        name = func.__name__
        grouped = self._groups.call(func, args, kwargs, given) if self._iteration is None else None
        if grouped is not None:
            self.used = self.used or isinstance(grouped, GroupSize)
            return grouped
        selections = {id(self._rows[leaf]) for leaf in given if leaf in self._rows}
        if selections:
            return self._call_rowwise(func, args, kwargs, given, len(selections))
        writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        if writes and (self._iteration is not None or (given and given[0] in self._masks)):
            raise SelectionError(f"{name} in a loop over a selection, or on its mask")
        return func(*args, **kwargs)

    def _select(self, condition: Tensor, as_tuple: bool) -> Any:
        """Return the indices at which a condition is true, as `torch.nonzero` does."""
        if condition in self._rows or condition in self._indices:
            raise SelectionError("a selection of a selection")
        selection = self._selection_of(condition)
        count = condition.numel()
        if as_tuple:
            indices = [condition.new_zeros(count, dtype=torch.long) for _ in condition.shape]
        else:
            indices = [condition.new_zeros((count, condition.dim()), dtype=torch.long)]
        for dim, index in enumerate(indices):
            self._indices[index] = (selection, dim if as_tuple else None)
        return tuple(indices) if as_tuple else indices[0]

    def _selection_of(self, condition: Tensor) -> RowSelection:
        self.used = True
        if condition not in self._masks:
            mask = condition if condition.dtype == torch.bool else condition != 0
            self._masks[condition] = RowSelection(mask)
        selection: RowSelection = self._masks[condition]
        return selection

    def _read_known(self, name: str, args: Any) -> Any:
        """Read a tensor whose contents are known; return None for others."""
        if args[0] not in self._numbers:
            return None
        numbers = self._numbers[args[0]]
        if name == "__getitem__":
            return self._constant(numbers[args[1]]) if isinstance(args[1], int) else None
        if name == "tolist":
            return numbers
        return numbers[0] if isinstance(numbers, list) and len(numbers) == 1 else numbers

    def _constant(self, numbers: Any) -> Tensor:
        tensor = torch.tensor(numbers)
        self._numbers[tensor] = numbers
        return tensor

    def _numeric_key(self, tensor: Tensor, key: Any) -> Any:
        """Replace tensors of known contents in a key by numbers.

        A number beyond the tensor's end becomes 0: the model never executes such an iteration, and
        nothing of it is kept.
        """
        parts = key if isinstance(key, tuple) else (key,)
        plain = list(parts)
        for dim, part in enumerate(parts):
            numbers = self._numbers.get(part) if isinstance(part, Tensor) else None
            if numbers is None:
                continue
            number = numbers[0] if isinstance(numbers, list) else numbers
            indexes_dim = None not in parts[:dim] and Ellipsis not in parts[:dim]
            if indexes_dim and number >= tensor.shape[dim]:
                self._fails, number = True, 0
            is_list = isinstance(numbers, list) and len(parts) == 1
            plain[dim] = slice(number, number + 1) if is_list else number
        return tuple(plain) if isinstance(key, tuple) else plain[0]

    def _is_selection(self, key: Any) -> bool:
        parts = key if isinstance(key, tuple) else (key,)
        return any(
            isinstance(part, Tensor) and (part in self._indices or part.dtype == torch.bool)
            for part in parts
        )

    def _take_rows(self, tensor: Tensor, key: Any) -> Tensor:
        """Return all rows of a tensor, where a key selects some."""
        parts = key if isinstance(key, tuple) else (key,)
        lead = [part for part in parts if isinstance(part, Tensor)]
        rest = parts[len(lead) :]
        if any(isinstance(part, Tensor) for part in rest) or tensor in self._rows:
            raise SelectionError("a selection of other than leading dims, or of a selection")
        if len(lead) == 1 and lead[0].dtype == torch.bool:
            selection = self._selection_of(lead[0])
            dims = tuple(range(lead[0].dim()))
        elif all(part in self._indices for part in lead):
            selection = self._indices[lead[0]][0]
            dims = tuple(self._indices[part][1] for part in lead)
            if any(self._indices[part][0] is not selection for part in lead) or None in dims:
                raise SelectionError("indices of different selections, or of several dims at once")
        else:
            raise SelectionError("indices of a selection together with other indices")
        rows = expand_rows(tensor, selection.mask, dims)
        rows = rows[(slice(None), *rest)] if rest else rows
        self._rows[rows] = selection
        return rows

    def _call_rowwise(
        self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], selections: int
    ) -> Any:
        """Compute a row-wise function of selected rows, and refuse any other."""
        selected = [leaf for leaf in given if leaf in self._rows]
        others = [leaf for leaf in given if leaf not in self._rows]
        if selections > 1 or any(leaf in self._indices for leaf in others):
            raise SelectionError(f"{func.__name__} of different selections")
        selection = self._rows[selected[0]]
        if _is_metadata(func):
            return func(*args, **kwargs)
        if not is_rowwise(func, args, kwargs, selected, others):
            raise SelectionError(f"{func.__name__} across selected rows")
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor) or leaf.shape[0] != selection.mask.numel():
                raise SelectionError(f"{func.__name__} of selected rows")
            self._rows[leaf] = selection
        return result

    def _write_back(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Add or write rows to the places they were selected from; None for any other call."""
        name = func.__name__
        if name in ("index_add", "index_add_") and len(args) == 4 and not kwargs:
            target, dim, index, rows = args
            if index in self._indices:
                self._check_target(target, rows, self._indices[index][0], dim == 0)
                if self._fails or self._dropped:
                    return target
                added = self._sum_rows(rows, *self._indices[index]).to(target.dtype)
                if target.shape != added.shape:
                    raise SelectionError(f"{name} of rows of another size")
                return target.add_(added) if name.endswith("_") else target + added
        if name == "__setitem__" and isinstance(args[2], Tensor) and args[2] in self._rows:
            target, mask, rows = args
            known = isinstance(mask, Tensor) and mask in self._masks
            selection = self._masks[mask] if known else None
            self._check_target(target, rows, selection, known and mask.dtype == torch.bool)
            if self._fails or self._dropped:
                return target
            whole = restore_dims(rows, self._executed(mask)).to(target.dtype)
            if target.shape != whole.shape:
                raise SelectionError("rows are written over rows of another size")
            target.copy_(torch.where(align_mask(self._executed(mask), whole), whole, target))
            return target
        return None

    def _check_target(self, target: Tensor, rows: Any, selection: Any, supported: bool) -> None:
        if not supported or self._rows.get(rows) is not selection or target in self._rows:
            raise SelectionError("rows are written to other places than they were selected from")

    def _executed(self, mask: Tensor) -> Tensor:
        """Return a mask, false everywhere where the model does not execute this iteration."""
        return mask if self._iteration is None else mask & self._iteration

    def _sum_rows(self, rows: Tensor, selection: RowSelection, dim: int) -> Tensor:
        """Sum the selected rows for every index of a dim of the mask."""
        mask = self._executed(selection.mask)
        whole = restore_dims(rows, mask)
        masked = whole.masked_fill(~align_mask(mask, whole), 0)
        others = [other for other in range(mask.dim()) if other != dim]
        return masked.sum(others) if others else masked

    def _loop(self, indices: Tensor) -> _Loop:
        """Return a loop over all indices of one dim."""
        selection, dim = self._indices[indices]
        mask = selection.mask
        if mask.dim() != 1 or not isinstance(mask.shape[0], int) or self._iteration is not None:
            raise SelectionError("a loop over a selection in another one, or of unknown length")

        self.queried = True
        length = 0 if self._empty else mask.shape[0]

        def iterate() -> Iterator[Tensor]:
            try:
                for number in range(length):
                    index = self._constant(number if dim == 0 else [number])
                    self._iteration, self._fails = mask[number], False
                    yield index
                    self._iteration, self._fails = None, False
            except GeneratorExit:
                self._left_early = True
                raise

        return _Loop(iterate)


def _is_metadata(func: Any) -> bool:
    """Return whether a call reads only the metadata of a tensor."""
    return property_of(func) in ("dtype", "device", "ndim", "dim", "is_floating_point")
