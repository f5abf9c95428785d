"""Block for one shape of device: its operators and values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs

from parframe.graph import Operator, Tensor
from parframe.layout import Region, TensorDim, region_of
from parframe.partitioning.actions import Placement
from parframe.partitioning.cuts import Shape
from parframe.plan import Layout


@attrs.frozen
class LocalBlock:
    """Block for one shape of device, with the block's own names.

    ``entries`` are the operators of each action; ``placed`` has the block's value of each local
    value, and its placement.
    """

    entries: tuple[tuple[Operator, ...], ...]
    tensors: Mapping[str, Tensor]
    placed: Mapping[str, tuple[str, Placement]]
    axes: Mapping[str, tuple[TensorDim, ...]]
    shape: Shape

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Layouts of the local values in those of the block."""
        regions: dict[tuple[TensorDim, frozenset[int]], Region] = {}

        def of(axis: TensorDim, cuts: frozenset[int]) -> Region:
            if (axis, cuts) not in regions:
                regions[axis, cuts] = region_of(axis, self.shape.of(cuts), {})
            return regions[axis, cuts]

        return {
            name: Layout(
                value,
                tuple(of(axis, layout.cuts) for axis in self.axes[value]),
                {axis: how for axes, how in sorted(layout.partial) for axis in axes},
            )
            for name, (value, layout) in self.placed.items()
        }
