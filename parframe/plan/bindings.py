"""Sizes, tensors and regions of a program with the numbers of one device put in."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.graph import Tensor
from parframe.layout import Join, Region, Span, compact_region
from parframe.plan.program import Device, Part
from parframe.sizes import Size, substitute


def bound_tensor(tensor: Tensor, bindings: Mapping[str, Size]) -> Tensor:
    """Return a tensor with the sizes of a device in place of its symbols."""
    shape = tuple(substitute(size, bindings) for size in tensor.shape)
    return tensor if shape == tensor.shape else attrs.evolve(tensor, shape=shape)


def bound_part(part: Part, device: Device) -> Part:
    """Return a part with the sizes of a device in its region."""
    region = tuple(bound_region(axis, device.bindings) for axis in part.region)
    return attrs.evolve(part, region=region)


def bound_region(region: Region, bindings: Mapping[str, Size]) -> Region:
    """Return a region with the sizes of a device in place of its symbols."""
    return compact_region(tuple(_bound_factor(factor, bindings) for factor in region))


def _bound_factor(factor: Span | Join, bindings: Mapping[str, Size]) -> Span | Join:
    if isinstance(factor, Join):
        return Join(tuple(bound_region(part, bindings) for part in factor.parts))
    ends = (factor.size, factor.start, factor.stop)
    return Span(*(substitute(end, bindings) for end in ends))
