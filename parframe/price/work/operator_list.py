"""What one device does in one stage: operators with counts, and the sizes of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from parframe.graph import Operator, Parameter, Tensor
from parframe.price.work.tensor_scaling import TensorScaling, TensorScalings


@attrs.frozen
class OperatorList:
    """The operators of one device in one stage.

    Parameters
    ----------
    operators
        In the order of execution.
    counts
        How often each is done: equal layers may be listed once.
    tensors
        Every value with its local shape.
    parameters
        The weights and buffers that are used, as in the model, by their local names.
    outputs
        FrameTensors that the model returns.
    sent
        What is sent to other stages: values, kind and the ranks from and to.
    extents
        The sizes on this device.
    members
        The ranks of this device's group over some mesh axes.
    """

    operators: tuple[Operator, ...]
    counts: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Parameter]
    outputs: frozenset[str]
    sent: tuple[tuple[str, str, tuple[int, ...]], ...]
    extents: TensorScalings
    members: Callable[[tuple[str, ...]], tuple[int, ...]]


class ScaledOperators:
    """The extents of a listing's values, each measured once."""

    def __init__(self, listing: OperatorList) -> None:
        self.listing = listing
        self.operators = listing.operators
        self.known: dict[str, TensorScaling] = {}

    def extent(self, name: str) -> TensorScaling:
        """The extent of a value."""
        found = self.known.get(name)
        if found is None:
            found = self.known[name] = self.listing.extents.of(self.listing.tensors[name])
        return found


def at(operator: Operator, slot: str) -> str:
    """The first value in an argument of an operator."""
    return operator.inputs[operator.slots.index(slot)]
