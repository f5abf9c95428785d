"""Actions of devices: computation, and conversion between placements.

All devices perform the same actions in the same order; only the sizes of their parts differ.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from parframe.dims import BoundOperator
from parframe.graph import Operator
from parframe.rules import DistributedForm

Partial: TypeAlias = tuple[tuple[str, ...], str]
"""Mesh axes over which a value is partial, and the pending reduction (``"sum"``)."""


@attrs.frozen
class Placement:
    """Placement of a value on the mesh: the cuts that split it, and the pending reductions."""

    cuts: frozenset[int] = frozenset()
    partial: frozenset[Partial] = frozenset()


WHOLE = Placement()


@attrs.frozen
class Compute:
    """Operator on the devices' parts.

    ``labels`` are the split ones; ``inputs`` and ``outputs`` are local names; ``bare`` leaves the
    addend out. Of a distributed ``form`` the devices along ``axes`` communicate.
    """

    index: int
    bound: BoundOperator
    cuts: frozenset[int]
    labels: frozenset[str]
    inputs: tuple[str, ...]
    befores: tuple[Placement, ...]
    outputs: tuple[str, ...]
    afters: tuple[Placement, ...]
    bare: bool = False
    form: DistributedForm | None = None
    axes: tuple[str, ...] = ()

    @property
    def operator(self) -> Operator:
        """Operator of the model."""
        return self.bound.site.operator


@attrs.frozen
class Convert:
    """One step from one layout of a value to another.

    ``kind`` is ``all_reduce``, ``reduce_scatter``, ``all_gather``, ``all_to_all`` or ``shard``;
    ``gone`` and ``come`` are the cuts that end and begin, ``partial`` what is reduced.
    """

    index: int
    kind: str
    value: str
    source: str
    output: str
    before: Placement
    after: Placement
    gone: int | None = None
    come: int | None = None
    partial: Partial | None = None


@attrs.frozen
class Add:
    """Sum of the reduced part of a value and an addend that was left out of it."""

    index: int
    value: str
    left: str
    right: str
    addend: str
    output: str
    layout: Placement
    right_layout: Placement
    aligned: tuple[int, ...]
    operator: Operator
    """The axes of the sum that the addend's axes are, in order."""


Action: TypeAlias = Compute | Convert | Add
