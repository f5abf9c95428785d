"""Selections of rows by a mask, exported as all rows with the mask: their number is in no shape.

``x[mask]`` and ``x[torch.where(mask)]`` have as many rows as the mask has elements that are true.
While a model is exported, they have all rows; what is computed of each row alone is computed of
all, and where rows are added or written back, those that the mask leaves out are not. A loop over
``hit.nonzero()`` goes over all numbers, and what it adds is masked by ``hit`` too. Rows
split by ``counts.tolist()`` are selections until all are joined. Whatever else a model does with a
selection is refused. The model's own code may ask whether there are any rows, and
counts the turns of its loops: it must compute the same without rows and turns as with all of them
where none of their results is kept, which is seen by exporting it both ways.
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

from parframe.loading.dense_indexing.row_groups import Groups, Size
from parframe.loading.dense_indexing.row_selection import Count, Selection, beside, spread, unfolded
from parframe.loading.dense_indexing.rowwise_functions import (
    SelectionError,
    is_rowwise,
    property_of,
)


@attrs.frozen(eq=False)
class _Turn:
    """One time through a loop, which the model takes where ``hit`` is true."""

    hit: Tensor


@attrs.frozen
class _Walk:
    """The turns of a loop."""

    turns: Callable[[], Iterator[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        return self.turns()


class Selections(TorchFunctionMode):
    """Keeps all rows of every selection.

    Parameters
    ----------
    dropped
        Whether no row is added or written back.
    empty
        Whether the model is told that there are none, and loops have no turns.
    """

    def __init__(self, dropped: bool = False, empty: bool = False) -> None:
        super().__init__()
        self.used = False  # whether there was a selection
        self.asked = False  # whether the model's own code can tell that there are rows
        self._dropped, self._empty = dropped, empty
        self._rows: Any = WeakIdKeyDictionary()  # what has the rows of a selection
        self._groups = Groups(self._rows)
        self._places: Any = WeakIdKeyDictionary()  # where they are along an axis of the mask
        self._masks: Any = WeakIdKeyDictionary()
        self._numbers: Any = WeakIdKeyDictionary()  # tensors whose contents are known
        self._turns: Any = WeakIdKeyDictionary()  # what a turn of a loop made
        self._turn: _Turn | None = None
        self._fails = False  # whether the model would fail in this turn, were it to take it
        self._left_early = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.check_outside(given)
        back = self._back(func, args, kwargs)
        if back is not None:
            return back
        found = self._called(func, args, kwargs, given)
        if self._turn is not None:
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor) and not any(leaf is own for own in given):
                    self._turns[leaf] = self._turn
        return found

    def check_outside(self, tensors: Sequence[Tensor]) -> None:
        """Refuse the use of what a loop made outside the turn that made it."""
        if self._left_early:
            raise SelectionError("a loop over a selection ends before all of it was seen")
        for tensor in tensors:
            if self._turns.get(tensor, self._turn) is not self._turn:
                raise SelectionError("what a loop over a selection computes is used outside it")

    def check_result(self, result: Any) -> None:
        """Refuse a model's result that is a selection."""
        leaves = tree_leaves(result)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.check_outside(tensors)
        sizes = any(isinstance(leaf, Size) for leaf in leaves)
        if sizes or any(leaf in self._rows or leaf in self._places for leaf in tensors):
            raise SelectionError("the model returns a selection")

    def _called(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        name = func.__name__
        if name == "nonzero" or (name == "where" and len(given) == 1 and len(args) == 1):
            pairs = name == "where" or kwargs.get("as_tuple", False)
            return self._selected(given[0], pairs)
        if name in ("__getitem__", "item", "__int__", "__index__", "tolist"):
            number = self._known(name, args)
            if number is not None:
                return number
        if name == "__getitem__":
            args = (args[0], self._plain_key(*args))
            if self._selects(args[1]):
                return self._taken(*args)
            given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if name == "unbind" and given[0] in self._places and args[1:] in ((), (0,)):
            return self._walk(given[0])
        if name == "numel" and given[0] in self._places:
            self.asked = True
            return Count(self._empty)
        if any(leaf in self._places for leaf in given) and not _is_harmless(func):
            raise SelectionError(f"{name} of the places of a selection")
        grouped = self._groups.called(func, args, kwargs, given) if self._turn is None else None
        if grouped is not None:
            self.used = self.used or isinstance(grouped, Size)
            return grouped
        selections = {id(self._rows[leaf]) for leaf in given if leaf in self._rows}
        if selections:
            return self._row_by_row(func, args, kwargs, given, len(selections))
        writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        if writes and (self._turn is not None or (given and given[0] in self._masks)):
            raise SelectionError(f"{name} within a loop over a selection, or of its mask")
        return func(*args, **kwargs)

    def _selected(self, condition: Tensor, pairs: bool) -> Any:
        """The places where a condition is true: an axis each, or side by side."""
        if condition in self._rows or condition in self._places:
            raise SelectionError("a selection of a selection")
        selection = self._of_mask(condition)
        places = [condition.new_zeros(selection.count, dtype=torch.long) for _ in condition.shape]
        if not pairs:
            places = [condition.new_zeros((selection.count, condition.dim()), dtype=torch.long)]
        for axis, place in enumerate(places):
            self._places[place] = (selection, axis if pairs else None)
        return tuple(places) if pairs else places[0]

    def _of_mask(self, condition: Tensor) -> Selection:
        self.used = True
        if condition not in self._masks:
            mask = condition if condition.dtype == torch.bool else condition != 0
            self._masks[condition] = Selection(mask)
        found: Selection = self._masks[condition]
        return found

    def _known(self, name: str, args: Any) -> Any:
        """What is read of a tensor whose contents are known; None of others."""
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

    def _plain_key(self, tensor: Tensor, key: Any) -> Any:
        """A key with tensors whose contents are known written as numbers.

        A number beyond the tensor's end is written as 0: the model would fail here, so that it
        never takes this turn, and nothing of it is kept.
        """
        parts = key if isinstance(key, tuple) else (key,)
        plain = list(parts)
        for axis, part in enumerate(parts):
            numbers = self._numbers.get(part) if isinstance(part, Tensor) else None
            if numbers is None:
                continue
            number = numbers[0] if isinstance(numbers, list) else numbers
            plainly = None not in parts[:axis] and Ellipsis not in parts[:axis]
            if plainly and number >= tensor.shape[axis]:
                self._fails, number = True, 0
            listed = isinstance(numbers, list) and len(parts) == 1
            plain[axis] = slice(number, number + 1) if listed else number
        return tuple(plain) if isinstance(key, tuple) else plain[0]

    def _selects(self, key: Any) -> bool:
        parts = key if isinstance(key, tuple) else (key,)
        return any(
            isinstance(part, Tensor) and (part in self._places or part.dtype == torch.bool)
            for part in parts
        )

    def _taken(self, tensor: Tensor, key: Any) -> Tensor:
        """All rows of a tensor, where some are asked for."""
        parts = key if isinstance(key, tuple) else (key,)
        lead = [part for part in parts if isinstance(part, Tensor)]
        rest = parts[len(lead) :]
        if any(isinstance(part, Tensor) for part in rest) or tensor in self._rows:
            raise SelectionError("a selection of other than leading axes, or of a selection")
        if len(lead) == 1 and lead[0].dtype == torch.bool:
            selection = self._of_mask(lead[0])
            axes = tuple(range(lead[0].dim()))
        elif all(part in self._places for part in lead):
            selection = self._places[lead[0]][0]
            axes = tuple(self._places[part][1] for part in lead)
            if any(self._places[part][0] is not selection for part in lead) or None in axes:
                raise SelectionError("places of different selections, or several side by side")
        else:
            raise SelectionError("places of a selection beside others")
        rows = spread(tensor, selection.mask, axes)
        rows = rows[(slice(None), *rest)] if rest else rows
        self._rows[rows] = selection
        return rows

    def _row_by_row(
        self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], selections: int
    ) -> Any:
        """What is computed of each row alone."""
        selected = [leaf for leaf in given if leaf in self._rows]
        others = [leaf for leaf in given if leaf not in self._rows]
        if selections > 1 or any(leaf in self._places for leaf in others):
            raise SelectionError(f"{func.__name__} of different selections")
        selection = self._rows[selected[0]]
        if _is_harmless(func):
            return func(*args, **kwargs)
        if not is_rowwise(func, args, kwargs, selected, others):
            raise SelectionError(f"{func.__name__} of the rows of a selection together")
        found = func(*args, **kwargs)
        for leaf in tree_leaves(found):
            if not isinstance(leaf, Tensor) or leaf.shape[0] != selection.count:
                raise SelectionError(f"{func.__name__} of the rows of a selection")
            self._rows[leaf] = selection
        return found

    def _back(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Rows added or written to where they are from; None of any other call."""
        name = func.__name__
        if name in ("index_add", "index_add_") and len(args) == 4 and not kwargs:
            target, axis, place, rows = args
            if place in self._places:
                self._check_back(target, rows, self._places[place][0], axis == 0)
                if self._fails or self._dropped:
                    return target
                added = self._added(rows, *self._places[place]).to(target.dtype)
                if target.shape != added.shape:
                    raise SelectionError(f"{name} of rows of another size")
                return target.add_(added) if name.endswith("_") else target + added
        if name == "__setitem__" and isinstance(args[2], Tensor) and args[2] in self._rows:
            target, mask, rows = args
            known = isinstance(mask, Tensor) and mask in self._masks
            selection = self._masks[mask] if known else None
            self._check_back(target, rows, selection, known and mask.dtype == torch.bool)
            if self._fails or self._dropped:
                return target
            whole = unfolded(rows, self._mask(mask)).to(target.dtype)
            if target.shape != whole.shape:
                raise SelectionError("rows are written over others of another size")
            target.copy_(torch.where(beside(self._mask(mask), whole), whole, target))
            return target
        return None

    def _check_back(self, target: Tensor, rows: Any, selection: Any, plain: bool) -> None:
        if not plain or self._rows.get(rows) is not selection or target in self._rows:
            raise SelectionError("rows go to where others are from")

    def _mask(self, mask: Tensor) -> Tensor:
        return mask if self._turn is None else mask & self._turn.hit

    def _added(self, rows: Tensor, selection: Selection, axis: int) -> Tensor:
        """The sum of the selected rows at every place along an axis of the mask."""
        mask = self._mask(selection.mask)
        whole = unfolded(rows, mask)
        kept = whole.masked_fill(~beside(mask, whole), 0)
        others = [other for other in range(mask.dim()) if other != axis]
        return kept.sum(others) if others else kept

    def _walk(self, places: Tensor) -> _Walk:
        """A loop over all places of one axis."""
        selection, axis = self._places[places]
        mask = selection.mask
        if mask.dim() != 1 or not isinstance(mask.shape[0], int) or self._turn is not None:
            raise SelectionError("a loop over a selection within another, or of unknown length")

        self.asked = True
        length = 0 if self._empty else mask.shape[0]

        def turns() -> Iterator[Tensor]:
            try:
                for number in range(length):
                    place = self._constant(number if axis == 0 else [number])
                    self._turn, self._fails = _Turn(mask[number]), False
                    yield place
                    self._turn, self._fails = None, False
            except GeneratorExit:
                self._left_early = True
                raise

        return _Walk(turns)


def _is_harmless(func: Any) -> bool:
    """Whether a call tells only what a tensor is like."""
    return property_of(func) in ("dtype", "device", "ndim", "dim", "is_floating_point")
