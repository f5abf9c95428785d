"""Operators of one device in one stage, with counts and the shapes of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from parframe.graph import Operator, Parameter, Tensor
from parframe.price.work.tensor_scaling import TensorScaling, TensorScalings


@attrs.frozen(eq=False)
class OperatorList:
    """Operators of one device in one stage.

    Parameters
    ----------
    operators
        Operators in the order of execution.
    counts
        Number of executions of each operator: equal layers may be listed once.
    tensors
        All values with their local shapes.
    parameters
        Weights and buffers of the model that are used, by their local names.
    outputs
        Values that the model returns.
    sends
        Sends to other stages: value, kind, and the ranks from and to.
    scalings
        Scaling of tensors on this device.
    group
        Function that returns the ranks of this device's group over some mesh axes.
    """

    operators: tuple[Operator, ...]
    counts: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Parameter]
    outputs: frozenset[str]
    sends: tuple[tuple[str, str, tuple[int, ...]], ...]
    scalings: TensorScalings
    group: Callable[[tuple[str, ...]], tuple[int, ...]]
    known: dict[str, TensorScaling] = attrs.field(factory=dict, init=False, repr=False)

    def scaling(self, name: str) -> TensorScaling:
        """Return the scaling of a value, which is computed once."""
        if name not in self.known:
            self.known[name] = self.scalings.of(self.tensors[name])
        return self.known[name]


def at(operator: Operator, slot: str) -> str:
    """Return the first value in an argument of an operator."""
    return operator.inputs[operator.slots.index(slot)]
