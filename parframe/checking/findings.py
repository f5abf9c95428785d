"""What a check says: findings, memory per device, communication, and all of it as a report."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

KINDS: Mapping[str, str] = {
    "structure": "a program is not well formed: a name, a shape or an argument is not legal",
    "type": "a value is not the part of the model's value that it is used as",
    "argument": "an operator's target or arguments are not those of its part of the model's",
    "shape": "a recorded shape or dtype is not what the operator gives",
    "partial": "a sum that is still to be reduced is used, returned or reduced wrongly",
    "collective": "the members of a group do not hold what a collective needs",
    "matching": "communications do not meet: another kind, order, shape, tag or group",
    "deadlock": "devices wait for each other for ever",
    "weights": "a weight is missing, out of bounds, held without use, or the wrong one",
    "state": "a cache is missing or keeps the wrong value",
    "output": "a part of the model's outputs is missing or another one",
    "memory": "a device needs more memory than its budget",
}
"""Every kind of finding and what it means."""


@attrs.frozen
class Finding:
    """One thing that is wrong with a plan.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    ranks
        The ranks that it is wrong on.
    operator
        The operator's name in the device's program, or ``""``.
    module
        The path of the module that the operator came from, or ``""``.
    message
        What is wrong.
    """

    kind: str
    ranks: tuple[int, ...]
    operator: str
    module: str
    message: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.operator, f"({self.module})") if part.strip("()"))
        return f"[{self.kind}] {_ranks(self.ranks)}{', ' if place else ''}{place}: {self.message}"


def _ranks(ranks: tuple[int, ...]) -> str:
    if not ranks:
        return "plan"
    shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


@attrs.frozen
class DeviceMemory:
    """Bytes that one device needs: weights, caches, and activations where they are the most."""

    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.weights + self.cache + self.activations

    def __str__(self) -> str:
        return (
            f"{in_words(self.total)} ({in_words(self.weights)} of weights, "
            f"{in_words(self.cache)} of cache, {in_words(self.activations)} of activations)"
        )


def in_words(size: int) -> str:
    """An amount of memory.

    Examples
    --------
    >>> in_words(3 * 2**20)
    '3.00 MiB'
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.2f} MiB"


@attrs.frozen
class Traffic:
    """The communications of one kind over the same mesh axes: operators and bytes.

    ``count`` is of one device (the busiest), ``bytes`` the sum of what all devices put in.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int


@attrs.frozen
class Report:
    """The verdict on a plan.

    Parameters
    ----------
    findings
        What is wrong; nothing if the plan is right.
    memory
        Of every rank.
    traffic
        Of every kind of communication and mesh axes.
    notes
        The plan's own remarks and the sizes that memory was counted for.
    """

    findings: tuple[Finding, ...]
    memory: Mapping[int, DeviceMemory]
    traffic: tuple[Traffic, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings
