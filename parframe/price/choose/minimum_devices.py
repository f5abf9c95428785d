"""Minimum number of devices that a model fits on, and the sequences that fit there."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.hardware import Device
from parframe.mesh import composite_degrees
from parframe.mesh.composite_enumeration import enumerate_composites
from parframe.price.serving.capacity import MemoryPolicy, max_sequences
from parframe.price.work.compressed.work_from_composite import work_from_composite
from parframe.price.work.work import Work

NODE_SIZE = 8
"""Maximum number of ranks that share a layer; beyond it, pipeline stages are added."""


@attrs.frozen
class Fit:
    """Minimum number of devices that a model fits on, and sequences that fit on them at once.

    The composite is empty for one device.
    """

    devices: int
    composite: str
    sequences: int


class CandidateLayouts:
    """Composites of one model that are tried, with their work, which is computed once."""

    def __init__(self, graph: OperatorGraph, max_devices: int) -> None:
        self.graph = graph
        self.max_devices = max_devices
        self._works: dict[str, Work | None] = {}

    def works(self, count: int) -> Iterator[tuple[str, Work]]:
        """Yield the composites of this number of devices that are valid, with their work."""
        for composite in candidate_composites(count):
            if composite not in self._works:
                self._works[composite] = self._work(composite)
            work = self._works[composite]
            if work is not None:
                yield composite, work

    def _work(self, composite: str) -> Work | None:
        try:
            return work_from_composite(self.graph, composite or "TP1")
        except ParframeError as error:
            if error.kind in ("partition", "strategy"):
                return None  # the model does not have what the composite splits, or too little
            raise


def candidate_composites(count: int) -> tuple[str, ...]:
    """Return the composites that are tried for a number of devices.

    Within a node: tensor parallelism, expert parallelism, or expert parallelism with TP2. Across
    nodes: pipeline parallelism.
    """
    if count == 1:
        return ("",)
    node = min(count, NODE_SIZE)
    tensor_degrees = [node, 1, 2] if node >= 4 else [node, 1]
    within = {
        composite: composite_degrees(composite).get("TP", 1)
        for composite in enumerate_composites(count, ("PP", "EP", "TP"))
        if composite_degrees(composite).get("PP", 1) == count // node
    }
    candidates = [name for name, tensor in within.items() if tensor in tensor_degrees]
    return tuple(sorted(candidates, key=lambda name: tensor_degrees.index(within[name])))


def find_minimum_devices(
    layouts: CandidateLayouts,
    device: Device,
    length: int,
    weights: str,
    cache_dtype: str = "bf16",
    policy: MemoryPolicy | str = "vllm",
) -> Fit | None:
    """Return the minimum number of devices, a power of two, that fits a sequence, or None.

    Its composite is the one that fits the most sequences.
    """
    for count in (1 << power for power in range(layouts.max_devices.bit_length())):
        fits = []
        for composite, work in layouts.works(count):
            capacity = max_sequences(work, device.usable, length, weights, cache_dtype, policy)
            if capacity.sequences > 0:
                fits.append(Fit(count, composite, capacity.sequences))
        if fits:
            return max(fits, key=lambda fit: fit.sequences)
    return None
