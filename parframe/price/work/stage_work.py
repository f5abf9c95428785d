"""Work of one device in one pipeline stage, from its operator list."""

from __future__ import annotations

import attrs

from parframe.price.work.communication import list_communication
from parframe.price.work.dataflow import Flow
from parframe.price.work.footprint import Liveness, compute_footprint, compute_load
from parframe.price.work.fused_operators import FusedOperators
from parframe.price.work.kernel_list import KernelList
from parframe.price.work.operator_list import OperatorList, ScaledOperators
from parframe.price.work.work import Kernel, Stage, Work


@attrs.frozen
class DeviceStructure:
    """What a device does and how that hangs together: the same for all sizes and counts."""

    merged: FusedOperators
    holding: Liveness

    @classmethod
    def of(cls, listing: OperatorList) -> DeviceStructure:
        """Look through a listing."""
        merged = FusedOperators(Flow(listing))
        return cls(merged, Liveness.of(merged))


def stage_work(
    listing: OperatorList, structure: DeviceStructure | None = None
) -> tuple[float, Stage]:
    """How busy a device is, and its work; the structure may be that of a like listing."""
    structure = structure or DeviceStructure.of(listing)
    kernels = KernelList(ScaledOperators(listing), structure.merged)
    computed = kernels.kernels()
    held = compute_footprint(kernels, structure.holding, computed)
    return compute_load(computed, held), Stage(computed, list_communication(kernels), held)


def combine_stages(stages: list[Stage], devices: int, layers: int) -> Work:
    """The stages as the work of a plan; those that compute the same have the same object for it."""
    share = max(stage.footprint.batch_share for stage in stages)
    known: dict[tuple[Kernel, ...], tuple[Kernel, ...]] = {}
    alike = (
        attrs.evolve(stage, kernels=known.setdefault(stage.kernels, stage.kernels))
        for stage in stages
    )
    return Work(tuple(alike), devices, max(1, round(1 / share)), layers)
