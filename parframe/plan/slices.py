"""Shards of weights as slices of the original tensors."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs
import numpy

from parframe.errors import ParframeError
from parframe.graph import Parameter
from parframe.layout import region_runs
from parframe.plan.bindings import bound_part
from parframe.plan.program import Device, Program

Run = tuple[int, int]
"""Half-open range ``(start, stop)`` along a tensor dim."""


@attrs.frozen
class Slices:
    """Part of a tensor: the runs that are taken along every dim, in order.

    Parameters
    ----------
    whole
        The name of the original tensor, as a parameter of the model.
    shape
        Its shape.
    runs
        For every dim, the half-open ranges that are taken; several if the weight is a
        concatenation.

    Examples
    --------
    >>> slices = Slices("weight", (4, 3), (((0, 1), (2, 3)), ((0, 3),)))
    >>> slices.local_shape
    (2, 3)
    >>> slices.take(numpy.arange(12).reshape(4, 3)).tolist()
    [[0, 1, 2], [6, 7, 8]]
    """

    whole: str
    shape: tuple[int, ...]
    runs: tuple[tuple[Run, ...], ...]

    @cached_property
    def local_shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        return tuple(sum(stop - start for start, stop in axis) for axis in self.runs)

    @property
    def is_whole(self) -> bool:
        """Return whether the part is the whole tensor."""
        return self.local_shape == self.shape

    @property
    def elements(self) -> int:
        """Number of elements of the part."""
        return math.prod(self.local_shape)

    def take(self, tensor: Any) -> Any:
        """Take the part from a tensor.

        Parameters
        ----------
        tensor : torch.Tensor, numpy.ndarray or a slice of an open safetensors file
            The original; of a safetensors slice only what is needed is read.

        Returns
        -------
        torch.Tensor or numpy.ndarray
            The part. It may share memory with the original.

        Raises
        ------
        ParframeError
            Of kind ``weights``, if the tensor has another shape.
        """
        shape = tuple(tensor.get_shape() if hasattr(tensor, "get_shape") else tensor.shape)
        if shape != self.shape:
            raise ParframeError(
                "weights",
                self.whole,
                f"has shape {list(shape)}, the model's is {list(self.shape)}",
                "give the weights of this model",
            )
        many = [axis for axis, found in enumerate(self.runs) if len(found) > 1]
        hull = [slice(found[0][0], found[-1][1]) if found else slice(0) for found in self.runs]
        if not many:
            return tensor[tuple(hull) or ...]
        first, *rest = many
        part = _joined(tensor, first, self.runs[first], hull)
        for axis in rest:
            start = self.runs[axis][0][0]
            shifted = [(low - start, high - start) for low, high in self.runs[axis]]
            part = _joined(part, axis, shifted, [slice(None)] * len(self.shape))
        return part


def slices_of(
    program: Program, device: Device, parameters: Mapping[str, Parameter]
) -> dict[str, Slices]:
    """Return the slices of all parameters of a device, by its own names; see `Plan.weights`."""
    found = {}
    for part in program.parameters:
        regions = bound_part(part, device).region
        shape = parameters[part.whole].shape
        try:
            axes = tuple(region_runs(region) for region in regions)
        except TypeError:
            axes = ()
        ends = (end for axis in axes for run in axis for end in run)
        if len(axes) < len(shape) or not all(isinstance(end, int) for end in (*shape, *ends)):
            raise ParframeError(
                "plan",
                f"rank {device.rank}, {part.name}",
                "its part of the weight is not of a known size",
                "partition the model again",
            )
        found[part.name] = Slices(part.whole, tuple(map(int, shape)), axes)
    return found


def _joined(tensor: Any, axis: int, found: Any, index: list[slice]) -> Any:
    pieces = [
        tensor[(*index[:axis], slice(start, stop), *index[axis + 1 :])] for start, stop in found
    ]
    if isinstance(pieces[0], numpy.ndarray):
        return numpy.concatenate(pieces, axis)
    return sys.modules["torch"].cat(pieces, axis)
