"""Results of a check: findings, memory of every device, communication, and the report of all."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.byte_amounts import format_bytes

KINDS: Mapping[str, str] = {
    "structure": "a program is malformed: an invalid name, shape or argument",
    "type": "a value is used as another value of the model, or as another part of it",
    "argument": "the target or the arguments of an operator differ from the model's operator",
    "shape": "a recorded shape or dtype differs from the operator's output",
    "partial": "a partial sum is used, returned or reduced wrongly",
    "collective": "the ranks of a group do not have the inputs that a collective needs",
    "matching": "communication operators of ranks do not match in kind, order, shape, tag or group",
    "deadlock": "ranks wait for each other forever",
    "weights": "a weight is missing, out of bounds, unused, or the wrong one",
    "state": "a cache is missing or stores the wrong value",
    "output": "a part of the model's outputs is missing or wrong",
    "memory": "a device needs more memory than its budget",
}
"""Kinds of findings and their meaning."""

Fault = tuple[str, str]
"""Kind of a finding, and its message."""


@attrs.frozen
class Finding:
    """Fault of a plan.

    - ``kind``: one of ``KINDS``.
    - ``operator``: the operator's name in the device's program, or ``""``.
    - ``module``: the path of the module that the operator came from, or ``""``.
    """

    kind: str
    ranks: tuple[int, ...]
    operator: str = attrs.field(default="", kw_only=True)
    module: str = attrs.field(default="", kw_only=True)
    message: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.operator, f"({self.module})") if part.strip("()"))
        where = ", ".join(part for part in (_format_ranks(self.ranks), place) if part)
        return f"[{self.kind}] {where}: {self.message}"


def _format_ranks(ranks: tuple[int, ...]) -> str:
    if not ranks:
        return "plan"
    shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


@attrs.frozen
class DeviceMemory:
    """Bytes that one device needs: weights, caches, and activations at their peak."""

    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        """Total bytes."""
        return self.weights + self.cache + self.activations

    def __str__(self) -> str:
        return (
            f"{format_bytes(self.total)} ({format_bytes(self.weights)} of weights, "
            f"{format_bytes(self.cache)} of cache, {format_bytes(self.activations)} of activations)"
        )


@attrs.frozen
class Traffic:
    """Communication of one kind over the same mesh axes: number of operators, and bytes.

    ``count`` is the most of any device, ``bytes`` the total that all devices send.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int


@attrs.frozen
class Report:
    """Result of checking a plan.

    - ``findings``: the faults; empty if the plan is right.
    - ``memory``: the memory of every rank, in bytes.
    - ``traffic``: the communication of every kind and mesh axes.
    - ``notes``: the plan's own notes, and the sizes that memory was counted for.
    """

    findings: tuple[Finding, ...]
    memory: Mapping[int, DeviceMemory]
    traffic: tuple[Traffic, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the plan has no fault."""
        return not self.findings
