"""Cuts that an operator could work on, with the labels and tensors that each splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import attrs

from parframe.dims import BoundOperator
from parframe.layout import Leaf, TensorDim, dims_of
from parframe.partitioning.cuts import Cut
from parframe.rules import DistributedForm, Signature
from parframe.rules.signature import Pattern, inputs_with, spell

Axes = Mapping[str, tuple[TensorDim, ...]]


@attrs.frozen
class Option:
    """One cut that an operator could work on, with the labels and tensors that it splits.

    Of a distributed ``form`` some inputs are ``moved``: they have the cut ``travels``.
    """

    cut: Cut
    labels: frozenset[str]
    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    contracted: bool
    form: DistributedForm | None = None
    travels: Cut | None = None
    moved: tuple[int, ...] = ()

    @property
    def ranks(self) -> frozenset[int]:
        """Cuts that the operator works on."""
        return frozenset(cut.rank for cut in (self.cut, self.travels) if cut is not None)

    def taken(self, position: int) -> frozenset[int]:
        """Return the cuts of an input."""
        own = {self.cut.rank} if self.inputs[position] else set()
        if self.travels is not None and position in self.moved:
            own.add(self.travels.rank)
        return frozenset(own)


def occurrences(axis: TensorDim, dim: str) -> int:
    """Count how often a dimension is a factor of a tensor dim (at most once in each segment)."""
    return sum(
        (factor.dim == dim)
        if isinstance(factor, Leaf)
        else max((occurrences(part, dim) for part in factor.parts), default=0)
        for factor in axis
    )


def tiles(axis: TensorDim, dims: frozenset[str]) -> bool:
    """Tell whether parts that tile some dimensions tile a tensor dim in every segment."""
    return any(
        factor.dim in dims
        if isinstance(factor, Leaf)
        else all(tiles(part, dims) for part in factor.parts)
        for factor in axis
    )


def carries(axes: Sequence[TensorDim], cut: Cut) -> bool:
    """Tell whether a cut can split a value: exactly one dim has each dimension that differs."""
    count = [sum(occurrences(axis, dim) for axis in axes) for dim in sorted(cut.uneven)]
    return any(count) and max(count) <= 1


def options(
    signature: Signature, bound: BoundOperator, axes: Axes, cuts: tuple[Cut, ...]
) -> list[Option]:
    """List every cut that an operator can work on, its distributed forms first."""
    found = [_option(cut, signature, bound, axes) for cut in cuts]
    plain = [option for option in found if option is not None]
    forms = (_distributed_forms(option, signature, bound, axes, cuts) for option in plain)
    return [*chain.from_iterable(forms), *plain]


def _distributed_forms(
    option: Option, signature: Signature, bound: BoundOperator, axes: Axes, cuts: tuple[Cut, ...]
) -> Iterator[Option]:
    """Yield the distributed forms of an operator for which the ranks of a cut communicate."""
    for form in bound.rule.distributed_forms if bound.rule is not None else ():
        wanted = form.name in option.cut.distributed_forms and form.stays in option.labels
        if not wanted or option.contracted:
            continue
        moved = inputs_with(signature, form.travels)
        values = [axes[bound.site.operator.inputs[number]] for number in moved]
        structure = bound.labels.get(form.travels) or ()
        for cut in cuts:
            if (
                set(cut.axes) == set(option.cut.axes)
                and all(tiles(structure, dims) for dims in cut.tiling)
                and all(carries(value, cut) for value in values)
            ):
                labels = option.labels | {form.travels}
                yield attrs.evolve(option, labels=labels, form=form, travels=cut, moved=moved)


def _option(cut: Cut, signature: Signature, bound: BoundOperator, axes: Axes) -> Option | None:
    if signature is not bound.signature:
        split = _split(cut, signature, bound, axes)
    else:
        key = (cut.uneven, cut.tiling)
        known = bound.split_cache.get(key)
        if known is None or known[0] is not axes:
            known = bound.split_cache[key] = (axes, _split(cut, signature, bound, axes))
        split = known[1]
    return None if split is None else Option(cut, *split)


def _split(
    cut: Cut, signature: Signature, bound: BoundOperator, axes: Axes
) -> tuple[frozenset[str], tuple[bool, ...], tuple[bool, ...], bool] | None:
    """Return the labels, inputs and outputs that a cut splits, and whether it contracts any."""
    operator = bound.site.operator
    blocked = {label for label, axis in bound.labels.items() if axis is None}
    frozen = signature.unsplittable() | blocked
    carry = {
        label
        for label, axis in bound.labels.items()
        if axis is not None and dims_of(axis) & cut.uneven
    }
    good = carry - frozen
    contracted = good & signature.contracted()
    if contracted and not _tiled(cut, bound, contracted, good):
        good -= contracted
        contracted = set()
    if not good:
        return None
    values = (*operator.inputs, *operator.outputs)
    patterns = (*signature.inputs, *signature.outputs)
    has = [
        _having(cut, axes[value], axes_patterns, carry, good)
        for value, axes_patterns in zip(values, patterns, strict=True)
    ]
    if None in has:
        return None
    width = len(operator.inputs)
    split = [bool(one) for one in has]
    return frozenset(good), tuple(split[:width]), tuple(split[width:]), bool(contracted)


def _tiled(cut: Cut, bound: BoundOperator, contracted: set[str], good: set[str]) -> bool:
    """Tell whether the devices' parts of the contracted labels are the whole, each once."""
    inner = [bound.labels[label] or () for label in contracted]
    kept = [bound.labels[label] or () for label in good - contracted]
    return all(
        any(tiles(axis, dims) for axis in inner) and not any(dims & dims_of(axis) for axis in kept)
        for dims in cut.tiling
    )


def _having(
    cut: Cut,
    axes: tuple[TensorDim, ...],
    patterns: tuple[Pattern, ...],
    carry: set[str],
    good: set[str],
) -> bool | None:
    """Tell whether an operator's tensor is split by a cut; None if only a part of it is."""
    verdicts: set[bool] = set()
    for axis, pattern in zip(axes, patterns, strict=True):
        if dims_of(axis) & cut.uneven:
            bearing = set(spell(pattern)) & carry
            if bearing & good and not bearing <= good:
                return None
            verdicts.add(bool(bearing & good))
    if len(verdicts) == 2 or (True in verdicts and not carries(axes, cut)):
        return None
    return True in verdicts
