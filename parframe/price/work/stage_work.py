"""Work of one device in one pipeline stage, from its operator list."""

from __future__ import annotations

import attrs

from parframe.price.work.communication import list_communication
from parframe.price.work.dataflow import Flow
from parframe.price.work.footprint import Liveness, compute_footprint, compute_load
from parframe.price.work.fused_operators import FusedOperators
from parframe.price.work.kernel_list import KernelList
from parframe.price.work.operator_list import OperatorList
from parframe.price.work.work import Kernel, Stage, Work


@attrs.frozen
class DeviceStructure:
    """Fused operators and lifetimes of a device, which do not depend on sizes and counts."""

    merged: FusedOperators
    holding: Liveness

    @classmethod
    def of(cls, listing: OperatorList) -> DeviceStructure:
        """Analyze an operator list."""
        merged = FusedOperators(Flow(listing))
        return cls(merged, Liveness.of(merged))


def stage_work(
    listing: OperatorList, structure: DeviceStructure | None = None
) -> tuple[float, Stage]:
    """Return the load and the work of a device; ``structure`` may be shared by equal lists."""
    structure = structure or DeviceStructure.of(listing)
    kernels = KernelList(listing, structure.merged)
    computed = kernels.kernels()
    footprint = compute_footprint(kernels, structure.holding, computed)
    return compute_load(computed, footprint), Stage(
        computed, list_communication(kernels), footprint
    )


def combine_stages(stages: list[Stage], devices: int, layers: int) -> Work:
    """Return stages as the work of a plan, with one object for equal tuples of kernels."""
    share = max(stage.footprint.batch_share for stage in stages)
    known: dict[tuple[Kernel, ...], tuple[Kernel, ...]] = {}
    alike = (
        attrs.evolve(stage, kernels=known.setdefault(stage.kernels, stage.kernels))
        for stage in stages
    )
    return Work(tuple(alike), devices, max(1, round(1 / share)), layers)
