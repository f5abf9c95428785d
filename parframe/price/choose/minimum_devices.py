"""Which model fits on how many of which GPU, and with how many sequences of which length."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.hardware import Device
from parframe.price.serving.capacity import Allocation, most_sequences
from parframe.price.work.compressed.work_from_composite import work_from_composite
from parframe.price.work.work import Work

NODE = 8
"""Ranks that share layers at most; beyond these, stages follow each other."""


@attrs.frozen
class Fitting:
    """The fewest devices that a model fits on.

    Parameters
    ----------
    devices
        How many.
    composite
        How the model is divided among them; empty for one device.
    sequences
        How many sequences have room on them at once.
    """

    devices: int
    composite: str
    sequences: int


class Layouts:
    """The ways of dividing one model that are tried, with the work of each, read once.

    Parameters
    ----------
    graph
        The model.
    most
        The most devices to try.
    """

    def __init__(self, graph: OperatorGraph, most: int) -> None:
        self.graph = graph
        self.most = most
        self.known: dict[str, Work | None] = {}

    def counts(self) -> Iterator[int]:
        """Numbers of devices: powers of two."""
        count = 1
        while count <= self.most:
            yield count
            count *= 2

    def works(self, count: int) -> Iterator[tuple[str, Work]]:
        """The ways of dividing the model among so many devices, with their work."""
        for composite in composites(count):
            if composite not in self.known:
                self.known[composite] = self._work(composite)
            work = self.known[composite]
            if work is not None:
                yield composite, work

    def _work(self, composite: str) -> Work | None:
        try:
            return work_from_composite(self.graph, composite or "TP1")
        except ParframeError as error:
            if error.kind in ("partition", "strategy"):
                return None  # the model has not what is split, or too little of it
            raise


def composites(count: int) -> tuple[str, ...]:
    """The composites that are tried for a number of devices.

    Tensor parallelism within a node and stages across; the same with the experts whole on ranks
    of their own, which data parallelism has the rest on.
    """
    if count == 1:
        return ("",)
    inner = min(count, NODE)
    stages = count // inner
    behind = f"PP{stages}" if stages > 1 else ""
    ways = [f"{behind}TP{inner}", f"{behind}EP{inner}"]
    if inner >= 4:
        ways.append(f"{behind}EP{inner // 2}TP2")
    return tuple(ways)


def fewest(
    layouts: Layouts,
    device: Device,
    length: int,
    weights: str,
    cache_dtype: str = "bf16",
    of: Allocation | str = "vllm",
) -> Fitting | None:
    """The fewest devices on which a sequence of a length has room, and how many then have.

    Parameters
    ----------
    layouts
        The ways of dividing the model.
    device
        The GPU.
    length
        Positions that are allocated for a sequence.
    weights, cache_dtype
        Dtypes.
    of
        The serving engine.

    Returns
    -------
    Fitting or None
        Of the ways to divide the model that with the most sequences; None if none fits.
    """
    for count in layouts.counts():
        found = [
            Fitting(count, composite, fit.sequences)
            for composite, work in layouts.works(count)
            for fit in [most_sequences(work, device.usable, length, weights, cache_dtype, of)]
            if fit.sequences > 0
        ]
        if found:
            return max(found, key=lambda one: one.sequences)
    return None
