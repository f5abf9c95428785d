"""What one operator call says about the axes of its tensors: which are the same, which are lost.

A *letter* stands for an axis, or for a factor or segment of one. Where a letter occurs in several
tensors, splitting one of them forces the same split of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from parframe.graph import Arg, Operator, Tensor
from parframe.sizes import Size


@attrs.frozen
class Concat:
    """Segments of a concatenated axis: ``[q | k | v]``."""

    parts: tuple[Pattern, ...]


Pattern: TypeAlias = tuple["str | Concat", ...]
"""One axis: a product of letters and segments, major to minor; ``()`` is an axis of size one."""


@attrs.frozen
class Signature:
    """The meaning of one operator call, letter by letter.

    Parameters
    ----------
    inputs, outputs
        For every tensor the patterns of its axes.
    sizes
        The size of every letter.
    whole
        Letters that must not be split: a softmax's axis, a sort's.
    free
        Letters of outputs alone, along which all elements are computed alike (an expanded axis):
        a device may compute any part. Other letters of outputs alone are whole.
    dropped
        Letters of inputs alone that are left out of the result (what a slice cuts away), and so
        are not contracted.
    reduction
        What remains to be done over devices that hold parts of a contracted letter.
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
        """Letters of inputs that are reduced over."""
        gone = letters(self.inputs) - letters(self.outputs)
        return gone - self.whole - self.dropped

    def unsplittable(self) -> frozenset[str]:
        """Letters that must be whole on every device."""
        return self.whole | (letters(self.outputs) - letters(self.inputs) - self.free)


def letters(tensors: tuple[tuple[Pattern, ...], ...]) -> frozenset[str]:
    """Every letter of these tensors."""
    return frozenset(letter for axes in tensors for axis in axes for letter in spell(axis))


def spell(pattern: Pattern) -> Iterator[str]:
    """The letters of one axis, in order."""
    for atom in pattern:
        if isinstance(atom, str):
            yield atom
        else:
            for part in atom.parts:
                yield from spell(part)


@attrs.frozen
class Site:
    """An operator where it stands: with the tensors it takes and gives."""

    operator: Operator
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def arg(self, name: str, default: Any = None) -> Any:
        """A non-tensor argument by its schema's name."""
        return self.operator.args.get(name, default)

    def input(self, slot: str) -> Tensor | None:
        """The (first) tensor in an argument, or None where it is absent."""
        for found, tensor in zip(self.operator.slots, self.inputs, strict=True):
            if found == slot:
                return tensor
        return None


class Local:
    """What a rule's ``local`` may ask and do while one operator is made local to a device.

    Shapes are those of the device's parts. ``emit`` writes operators of the device's graph; the
    last ones must define the names in ``site.operator.outputs``.
    """

    site: Site
    signature: Signature

    def shape(self, name: str) -> tuple[Size, ...]:
        """The local shape of an input or output by its name."""
        raise KeyError(name)

    def size(self, letter: str) -> Size:
        """How much of a letter the device holds."""
        raise KeyError(letter)

    def start(self, letter: str) -> Size:
        """Where the device's part of a letter begins (letters of one dimension)."""
        raise KeyError(letter)

    def split(self, letter: str) -> bool:
        """Whether a letter is split over devices here."""
        raise KeyError(letter)

    def emit(
        self, target: str, args: Mapping[str, Arg], output: str | tuple[Size, ...], dtype: str = ""
    ) -> str:
        """Write an operator; ``output`` is one of the operator's outputs or a temporary's shape.

        Returns the name of the value it defines.
        """
        raise KeyError(target)


Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shapes of tensors in numbers, by the argument that they stand in."""


@attrs.frozen
class Exchange:
    """A form of an operator in which devices exchange what they hold of a letter.

    Its meaning is that of gathering the letter that travels and computing the operator on what
    stays, but no device ever holds the letter whole.

    Parameters
    ----------
    name
        What a strategy calls it: ``"ring"``.
    target
        The communication operator, one of those that `parframe.simulation` knows:
        ``"parframe.ring_attention"``. It takes the operator's own arguments.
    stays
        The letter of the result that is split over the mesh axes.
    travels
        The letter, split over the same axes, that is exchanged; the result is complete in it.
    says
        What happens, in a few words for reports.
    sent
        How many elements a device sends at most, by the argument whose dtype they have. It is
        given the shapes of the device's arguments, the names of those that have the letter that
        travels, and how many devices there are.
    more
        What the communication takes beside the operator's own arguments, from the device's parts.
    """

    name: str
    target: str
    stays: str
    travels: str
    says: str = attrs.field(repr=False)
    sent: Callable[[Shapes, tuple[str, ...], int], Mapping[str, int]] = attrs.field(repr=False)
    more: Callable[[Local], Mapping[str, Arg]] | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Rule:
    """One line of the table.

    Parameters
    ----------
    target
        The operator's overload, ``"aten.linear.default"``.
    signature
        The notation (see ``parframe.rules.notation``), or a function ``Site -> Signature`` where
        it depends on the operator's attributes; None where this call is not covered.
    slots
        The tensor arguments that the notation's inputs stand for, in order, blank separated.
    linear
        The groups of slots through which a partial sum may pass: ``"input | weight"``,
        ``"self other"``.
    addend
        The slot that is added to the result (a bias).
    bare
        Writes the operator without its addend; by default the argument is left out.
    shapes
        Arguments that repeat the shape of the first output (a view's ``size``): localised so.
    local
        Writes the operator for a device where its arguments change otherwise; by default the
        operator is taken as it is.
    decompose
        Writes the operator as simpler ones, for a call in which a letter that must be whole is
        split: returns the operators and their new values.
    roles
        What letters do in the model, where the operator alone tells: ``{"x": "experts"}``.
    exchanges
        The forms in which devices exchange a letter instead of gathering it.
    """

    target: str
    signature: str | Callable[[Site], Signature | None]
    slots: str = ""
    linear: str = ""
    moves: bool = False
    addend: str = ""
    bare: Callable[[Operator], Operator] | None = None
    shapes: tuple[str, ...] = ()
    local: Callable[[Local], None] | None = None
    decompose: Callable[[Site], tuple[tuple[Operator, ...], Mapping[str, Tensor]] | None] | None = (
        None
    )
    roles: Mapping[str, str] = attrs.field(factory=dict)
    exchanges: tuple[Exchange, ...] = ()


def bearing(signature: Signature, letter: str) -> tuple[int, ...]:
    """The numbers of the inputs that have a letter."""
    return tuple(i for i, axes in enumerate(signature.inputs) if letter in letters((axes,)))


def without_addend(rule: Rule, site: Site, signature: Signature) -> Site:
    """The operator without the tensor that is added to its result, where it has one."""
    if signature.addend is None:
        return site
    if rule.bare is not None:
        operator = rule.bare(site.operator)
    else:
        slot = site.operator.slots[signature.addend]
        args = {name: arg for name, arg in site.operator.args.items() if name != slot}
        operator = attrs.evolve(site.operator, args=args)
    inputs = tuple(t for i, t in enumerate(site.inputs) if i != signature.addend)
    return Site(operator, inputs, site.outputs)
