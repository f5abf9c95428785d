"""Signature of one operator call: which dims of its tensors are the same, and which are lost.

A *label* stands for a dim, or for a factor or segment of one, as in NumPy's einsum. Where a label
occurs in several tensors, splitting one of them forces the same split of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import attrs

from parframe.sizes import Size


@attrs.frozen
class Concat:
    """Segments of a concatenated dim: ``[q | k | v]``."""

    parts: tuple[Pattern, ...]


Pattern: TypeAlias = tuple["str | Concat", ...]
"""One dim: a product of labels and segments, major to minor; ``()`` is a dim of size one."""


@attrs.frozen
class Signature:
    """The meaning of one operator call, label by label.

    Parameters
    ----------
    inputs, outputs
        For every tensor the patterns of its dims.
    sizes
        The size of every label.
    whole
        Labels that must not be split: the dim of a softmax or of a sort.
    free
        Labels of outputs alone, along which all elements are computed alike (an expanded dim):
        a device may compute any part. Other labels of outputs alone are whole.
    dropped
        Labels of inputs alone that are left out of the result (what a slice cuts away), and so
        are not contracted.
    reduction
        The reduction that remains to be done over devices that have parts of a contracted label.
    linear
        Groups of inputs (by number). A partial sum may pass if exactly the inputs of one group
        are partial: ``({0}, {1})`` for a product, ``({0, 1},)`` for a sum.
    moves
        The operator only moves or selects elements, so any partial value may pass.
    addend
        The input that is added to the result of the others (a bias), so that it must be added
        once where the result is a partial sum.
    """

    inputs: tuple[tuple[Pattern, ...], ...]
    outputs: tuple[tuple[Pattern, ...], ...]
    sizes: Mapping[str, Size]
    whole: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    reduction: str = "sum"
    linear: tuple[frozenset[int], ...] = ()
    moves: bool = False
    addend: int | None = None

    def contracted(self) -> frozenset[str]:
        """Return the labels of inputs that are reduced over."""
        gone = labels_of(self.inputs) - labels_of(self.outputs)
        return gone - self.whole - self.dropped

    def unsplittable(self) -> frozenset[str]:
        """Return the labels that must be whole on every device."""
        return self.whole | (labels_of(self.outputs) - labels_of(self.inputs) - self.free)


def labels_of(tensors: tuple[tuple[Pattern, ...], ...]) -> frozenset[str]:
    """Return every label of these tensors."""
    return frozenset(label for dims in tensors for dim in dims for label in spell(dim))


def spell(pattern: Pattern) -> Iterator[str]:
    """Yield the labels of one dim, in order."""
    for atom in pattern:
        if isinstance(atom, str):
            yield atom
        else:
            for part in atom.parts:
                yield from spell(part)


def inputs_with(signature: Signature, label: str) -> tuple[int, ...]:
    """Return the numbers of the inputs that have a label."""
    return tuple(i for i, dims in enumerate(signature.inputs) if label in labels_of((dims,)))
