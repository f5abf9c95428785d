"""Rules: what parframe knows of an operator, stated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from parframe.graph import Arg, Operator, Tensor
from parframe.rules.implementation import Implementation
from parframe.rules.kinds import POINTWISE, Kind
from parframe.rules.signature import Signature
from parframe.sizes import Size


@attrs.frozen
class Site:
    """One call of an operator, with the tensors that it takes and gives."""

    operator: Operator
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def arg(self, name: str, default: Any = None) -> Any:
        """Return a non-tensor argument by its schema's name."""
        return self.operator.args.get(name, default)

    def input(self, slot: str) -> Tensor | None:
        """Return the (first) tensor in an argument, or None where it is absent."""
        for name, tensor in zip(self.operator.slots, self.inputs, strict=True):
            if name == slot:
                return tensor
        return None


class Local:
    """A call that is being made local to a device, as a rule's ``local`` sees it.

    Shapes are those of the device's parts. ``emit`` writes operators of the device's program; the
    last ones must define the names in ``site.operator.outputs``.
    """

    site: Site
    signature: Signature

    def shape(self, name: str) -> tuple[Size, ...]:
        """Return the local shape of an input or output by its name."""
        raise KeyError(name)

    def size(self, label: str) -> Size:
        """Return the size of the device's part of a label."""
        raise KeyError(label)

    def start(self, label: str) -> Size:
        """Return where the device's part of a label begins (labels of one dimension)."""
        raise KeyError(label)

    def split(self, label: str) -> bool:
        """Return whether a label is split over devices here."""
        raise KeyError(label)

    def emit(
        self, target: str, args: Mapping[str, Arg], output: str | tuple[Size, ...], dtype: str = ""
    ) -> str:
        """Write an operator, and return the name of the value that it defines.

        ``output`` is one of the operator's outputs or the shape of a temporary.
        """
        raise KeyError(target)


Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shapes of tensors in numbers, by the argument that they stand in."""


@attrs.frozen
class PricedCollective:
    """One or several (``count``) collectives that a distributed form is priced as.

    ``kind`` is the collective, such as ``"all_gather"``. Each communicates ``factor`` times the
    size of the part of the argument ``slot``.
    """

    kind: str
    slot: str
    factor: float = 1.0
    count: int = 1


PricedAs: TypeAlias = Callable[[Mapping[str, float], int], tuple[PricedCollective, ...]]
"""Collectives from the number of elements of each argument for one token, and of ranks."""


@attrs.frozen
class DistributedForm:
    """A form of an operator in which ranks communicate instead of gathering a label.

    Its meaning is that of gathering the label that travels and computing the operator on what
    stays, but no device ever has the label whole.

    Parameters
    ----------
    name
        The name by which strategies ask for it: ``"ring"``.
    target
        The target of the operator in a plan: ``"parframe.ring_attention"``. It has the arguments
        of the model's operator, then ``travels``, ``axes`` and ``tag``.
    stays
        The label of the result that is split over the mesh axes.
    travels
        The label, split over the same axes, that is communicated; the result is complete in it.
    description
        What happens, in a few words for reports.
    count_sent
        Returns how many elements a device sends at most, by the argument whose dtype they have.
        It is given the shapes of the device's arguments, the names of those that have the label
        that travels, and the number of ranks.
    simulate
        Computes all ranks of a group in one process: takes a list of every rank's arguments by
        name, and returns a list of every rank's result.
    run
        Computes one rank: a function, or an overload of a custom operator, which a compiled
        program needs. Its parameters are arguments of the operator and of ``arguments``, those of
        ``sizes`` and ``lists``, and ``rank`` (this rank's number in the group) and ``group`` (the
        group's name, see ``parframe.ops.group_registry``).
    arguments
        Returns the arguments that it has beyond those of the model's operator, from the device's
        parts.
    sizes
        Parameters of ``run`` that list one size for every rank: ``{"keys": ("key", 2)}`` lists
        the sizes of dim 2 of ``key``.
    lists
        Parameters of ``run`` that list every rank's value of one of ``arguments``:
        ``{"firsts": "first"}``.
    measure_sent
        Returns exactly how many elements a rank sends, from the list that ``simulate`` takes and
        the rank's number; by default `count_sent` of the tensors' shapes is taken.
    priced_as
        Returns the collectives that it is priced as, from the number of elements of each argument
        for one token and the number of ranks; by default one all-gather of every argument that
        travels.
    hint
        What to do where ``run`` does not take one of the operator's arguments.
    """

    name: str
    target: str
    stays: str
    travels: str
    description: str = attrs.field(repr=False)
    count_sent: Callable[[Shapes, tuple[str, ...], int], Mapping[str, int]] = attrs.field(
        repr=False
    )
    simulate: Implementation = attrs.field(repr=False)
    run: Implementation = attrs.field(repr=False)
    arguments: Callable[[Local], Mapping[str, Arg]] | None = attrs.field(default=None, repr=False)
    sizes: Mapping[str, tuple[str, int]] = attrs.field(factory=dict, repr=False)
    lists: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    measure_sent: Implementation | None = attrs.field(default=None, repr=False)
    priced_as: PricedAs | None = attrs.field(default=None, repr=False)
    hint: str = attrs.field(default="gather that argument instead", repr=False)


@attrs.frozen
class Rule:
    """One operator: how it is split, what it is, and how it is computed.

    Parameters
    ----------
    target
        The operator's overload, ``"aten.linear.default"``.
    signature
        The notation (see ``parframe.rules.notation``), or a function ``Site -> Signature`` where
        it depends on the operator's attributes; None where this call is not covered.
    slots
        The tensor arguments that the notation's inputs stand for, in order, separated by blanks.
    linear
        The groups of slots through which a partial sum may pass: ``"input | weight"``,
        ``"self other"``.
    moves
        Whether the operator only moves or selects elements.
    addend
        The slot that is added to the result (a bias).
    bare
        Writes the operator without its addend; by default the argument is left out.
    shapes
        Arguments that repeat the shape of the first output (a view's ``size``): made local.
    local
        Writes the operator for a device where its arguments change otherwise; by default the
        operator is taken as it is.
    decompose
        Writes the operator as simpler ones, for a call in which a label that must be whole is
        split: returns the operators and their new values.
    roles
        Roles of labels in the model, where the operator alone tells them: ``{"x": "experts"}``.
    distributed_forms
        The forms in which ranks communicate instead of gathering a label.
    kind
        What the operator is to memory counting and pricing.
    state
        The arguments whose values are kept between steps in a key-value cache.
    indices
        The argument that has rows and the argument that numbers them: ``("weight", "indices")``.
    identity
        Whether a call returns its first input unchanged, given equal shapes and dtypes.
    canonical
        Writes a call in the canonical form in which loaded graphs have it; by default as it is.
    fresh
        Whether the result never shares memory with an argument, although PyTorch's schema does
        not say so.
    one_dtype
        Whether all floating-point tensors must have one dtype.
    implementation
        The function that computes the operator, called with its arguments by name, if PyTorch has
        no operator of this target: ``"package.module:function"``, or the function itself.
    runtime
        A faster function for the modules of ranks. It is called with the tensors of ``slots`` in
        order, or with all arguments by name where there are no ``slots``.
    registered_by
        The module that registers the operator with ``torch.library``.
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
    distributed_forms: tuple[DistributedForm, ...] = ()
    kind: Kind = POINTWISE
    state: tuple[str, ...] = ()
    indices: tuple[str, str] | None = None
    identity: Callable[[Operator], bool] | None = None
    canonical: Callable[[Site], Operator] | None = None
    fresh: bool = False
    one_dtype: bool = False
    implementation: Implementation | None = None
    runtime: Implementation | None = None
    registered_by: str = ""


@attrs.frozen
class DeviceOperator:
    """An operator that only programs of devices have, written by a rule's ``local``.

    ``original`` returns the model's operator of which it computes the device's part, and whose kind
    it has if ``kind`` is None. The implementation is called with its arguments by name.
    """

    target: str
    original: Callable[[Operator], Operator]
    implementation: Implementation
    kind: Kind | None = None


def without_addend(rule: Rule, site: Site, signature: Signature) -> Site:
    """Return the call without the tensor that is added to its result, where it has one."""
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
