"""Program of a device: operators of the model, and communication operators.

Devices that do the same share one *program*; what differs from device to device is in the
device's *bindings*: where its part of a dimension starts (``vocab_start``), and how much of a
symbolic dimension it holds (``batch_here``). Communication operators are ordinary operators, see
`parframe.rules.communication`.

A *distributed form* (``parframe.ring_attention``) is an operator of the model for which ranks
communicate instead of gathering: it takes the operator's own arguments, then ``travels, axes,
tag``; ``travels`` names those arguments of which the parts are communicated.

The group of a communication operator on a rank is ``mesh.group(rank, axes)``; its ranks are
numbered by their place in it. A tag is the same on every device that takes part, and no two
communications of a group have the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.graph import Operator, State, Tensor
from parframe.layout import Region
from parframe.sizes import Size


@attrs.frozen
class Part:
    """Part of a tensor that a device has: ``name`` is ``region`` of ``whole``.

    ``region`` has one entry for every axis.
    """

    name: str
    whole: str
    region: tuple[Region, ...]


@attrs.frozen
class Layout:
    """Layout of a device's value: it is ``region`` of the model's value ``whole``.

    Over the mesh axes in ``partial`` it is still to be reduced: axis to reduction.
    """

    whole: str
    region: tuple[Region, ...]
    partial: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Program:
    """Operators of a device in order, over its parts of the tensors.

    Parameters
    ----------
    name
        The role's name.
    stage
        The pipeline stage, from 0.
    operators
        In the order of execution. A local operator bears the name of the model's operator it is
        the part of, and defines values of the same names; converted values are ``NAME@...`` and
        temporaries ``NAME~...``.
    tensors
        Every value with its local shape.
    inputs, parameters, outputs
        The parts of the model's inputs and parameters that the device is given, and of the
        model's outputs that it gives.
    states
        Caches: values kept for every position.
    layouts
        For values of the model that the program computes, how they lie in the whole; a record
        for reading and for naming a fault, that nothing computes from.
    """

    name: str
    stage: int
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[Part, ...]
    parameters: tuple[Part, ...]
    outputs: tuple[Part, ...]
    states: tuple[State, ...] = ()
    layouts: Mapping[str, Layout] = attrs.field(factory=dict)


@attrs.frozen
class Device:
    """Device: its rank, its program, and the values of the program's bound symbols."""

    rank: int
    program: str
    bindings: Mapping[str, Size]


@attrs.frozen
class Note:
    """Note on the plan: a replicated weight, replicated compute, or a gathered tensor.

    ``bytes`` is for one device, in bytes, as a size of the model's symbols.
    """

    kind: str
    where: str
    what: str
    bytes: Size


def group_axes(operator: Operator) -> tuple[str, ...]:
    """Return the mesh axes along which the group of a communication operator extends."""
    axes = operator.args.get("axes")
    return tuple(map(str, axes)) if isinstance(axes, tuple) else ()
