"""Work of one device in one pipeline stage, from its operator list."""

from __future__ import annotations

import attrs

from parframe.price.work.communication import exchanges_of
from parframe.price.work.dataflow import Flow
from parframe.price.work.footprint import Holding, held_of, load_of
from parframe.price.work.fused_operators import Merged
from parframe.price.work.kernel_list import Kernels
from parframe.price.work.operator_list import Listing, Measured
from parframe.price.work.work import Kernel, Stage, Work


@attrs.frozen
class Structure:
    """What a device does and how that hangs together: the same for all sizes and counts."""

    merged: Merged
    holding: Holding

    @classmethod
    def of(cls, listing: Listing) -> Structure:
        """Look through a listing."""
        merged = Merged(Flow(listing))
        return cls(merged, Holding.of(merged))


def stage_of(listing: Listing, structure: Structure | None = None) -> tuple[float, Stage]:
    """How busy a device is, and its work; the structure may be that of a like listing."""
    structure = structure or Structure.of(listing)
    kernels = Kernels(Measured(listing), structure.merged)
    computed = kernels.kernels()
    held = held_of(kernels, structure.holding, computed)
    return load_of(computed, held), Stage(computed, exchanges_of(kernels), held)


def whole(stages: list[Stage], devices: int, layers: int) -> Work:
    """The stages as the work of a plan; those that compute the same have the same object for it."""
    share = max(stage.held.share for stage in stages)
    known: dict[tuple[Kernel, ...], tuple[Kernel, ...]] = {}
    alike = (
        attrs.evolve(stage, kernels=known.setdefault(stage.kernels, stage.kernels))
        for stage in stages
    )
    return Work(tuple(alike), devices, max(1, round(1 / share)), layers)
