"""What devices do, before it is known how much of each tensor they hold: computing, converting.

All devices perform the same actions in the same order; only their pieces differ.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from parframe.dims import BoundOperator
from parframe.graph import Operator
from parframe.rules import DistributedForm

Partial: TypeAlias = tuple[tuple[str, ...], str]
"""Mesh axes over which a value has still to be reduced, and how (``"sum"``)."""


@attrs.frozen
class Placement:
    """How a value lies on the mesh: which cuts split it, and what is still to be reduced."""

    cuts: frozenset[int] = frozenset()
    partial: frozenset[Partial] = frozenset()


WHOLE = Placement()


@attrs.frozen
class Compute:
    """An operator on the devices' parts.

    ``letters`` are those that are split; ``inputs`` and ``outputs`` are local names; ``bare``
    leaves the addend out. Of a distributed ``form`` the devices along ``axes`` communicate.
    """

    index: int
    bound: BoundOperator
    cuts: frozenset[int]
    letters: frozenset[str]
    inputs: tuple[str, ...]
    befores: tuple[Placement, ...]
    outputs: tuple[str, ...]
    afters: tuple[Placement, ...]
    bare: bool = False
    form: DistributedForm | None = None
    axes: tuple[str, ...] = ()

    @property
    def operator(self) -> Operator:
        """The model's operator."""
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
    """The sum of a value's reduced part and an addend that was left out of it."""

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
