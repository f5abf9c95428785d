"""The finished partition: a program for every device, with communication operators in it.

Devices that do the same share one *program*; what differs from device to device is in the
device's *bindings*: where its part of a dimension starts (``vocab_start``), and how much of a
symbolic dimension it holds (``batch_here``). Communication operators are ordinary operators:

================================  ==================================================================
``parframe.all_reduce``           ``input, axes, reduction, tag``
``parframe.all_gather``           ``input, axes, parts, tag``; ``parts[m]`` is where the part of the
                                  group's member ``m`` lies in the result: a region for every axis
``parframe.reduce_scatter``       ``input, axes, reduction, parts, tag``; member ``m`` keeps
                                  ``parts[m]`` of the reduced tensor
``parframe.all_to_all``           ``input, axes, sends, parts, tag``; ``sends[m]`` of the input goes
                                  to member ``m``, what comes from ``m`` lies at ``parts[m]``
``parframe.broadcast``            ``input, axes, root, tag``; only the member ``root`` has ``input``
``parframe.send``, ``.recv``      ``input, axes, peer, tag``; ``axes, peer, tag``: the member
                                  ``peer`` of the group
``parframe.shard``                ``input, part``: takes a region for every axis; no communication
================================  ==================================================================

The group of a communication operator on a rank is ``mesh.group(rank, axes)``; its members are
numbered by their place in it. A tag is the same on every device that takes part, and no two
communications of a group have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs
import networkx

from parframe.graph import Operator, OperatorGraph, State, Tensor
from parframe.layout import Region
from parframe.mesh import Mesh
from parframe.sizes import Size
from parframe.strategy import Placing

COMMUNICATION = frozenset(
    f"parframe.{name}"
    for name in (
        "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send", "recv",
    )
)  # fmt: skip
"""The targets of communication operators."""


@attrs.frozen
class Part:
    """What a device holds of a whole tensor: ``name`` locally is ``region`` of ``whole``.

    ``region`` has one entry for every axis.
    """

    name: str
    whole: str
    region: tuple[Region, ...]


@attrs.frozen
class Program:
    """What a device does: the operators in order, over its parts of the tensors.

    Parameters
    ----------
    name
        The role's name.
    stage
        The pipeline stage, from 0.
    operators
        In the order of execution. A local operator bears the name of the model's operator it is
        the part of, and defines values of the same names; converted values are ``NAME@...`` and
        temporaries ``NAME~...``.
    tensors
        Every value with its local shape.
    inputs, parameters, outputs
        The parts of the model's inputs and parameters that the device is given, and of the
        model's outputs that it gives.
    states
        Caches: values kept for every position.
    """

    name: str
    stage: int
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[Part, ...]
    parameters: tuple[Part, ...]
    outputs: tuple[Part, ...]
    states: tuple[State, ...] = ()


@attrs.frozen
class Device:
    """One device: its rank, its program, and the values of the program's bound symbols."""

    rank: int
    program: str
    bindings: Mapping[str, Size]


@attrs.frozen
class Note:
    """A remark on the plan: a weight held whole, compute repeated, a tensor gathered.

    ``bytes`` is for one device, in bytes, as a size of the model's symbols.
    """

    kind: str
    where: str
    what: str
    bytes: Size


@attrs.frozen
class Plan:
    """A partition of a graph over a mesh."""

    graph: OperatorGraph
    placing: Placing
    programs: Mapping[str, Program]
    devices: tuple[Device, ...]
    notes: tuple[Note, ...] = ()

    @property
    def mesh(self) -> Mesh:
        """The devices as a named grid."""
        return self.placing.mesh

    def program(self, rank: int) -> Program:
        """The program of a rank."""
        return self.programs[self.devices[rank].program]
