"""A partition of an operator graph over a mesh, and what each device has of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
import networkx

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.plan.device_graph import device_graph
from parframe.plan.program import Device, Note, Program
from parframe.plan.slices import Slices, slices_of
from parframe.strategy import Placing


@attrs.frozen
class Plan:
    """A partition of a graph over a mesh.

    Parameters
    ----------
    graph
        The model.
    placing
        The mesh, and which names are split over which of its axes.
    programs
        What the devices do, by the program's name.
    devices
        One for every rank, in order.
    notes
        Remarks for the user.
    """

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
        """The program of a rank.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if there is no such rank.
        """
        return self.programs[self._device(rank).program]

    def device(self, rank: int) -> networkx.MultiDiGraph:
        """The graph of one device: a node an operator, an edge a tensor.

        Parameters
        ----------
        rank
            A rank of the mesh.

        Returns
        -------
        networkx.MultiDiGraph
            Its nodes have a ``kind``: ``"input"`` and ``"parameter"`` (with the ``part`` that
            they are of a whole tensor), ``"operator"`` (with the ``operator``, and the ranks of
            the ``group`` if it communicates) and ``"output"`` (with ``part``). Edges have the
            ``value``'s name and the ``tensor``, with the device's sizes where they are numbers.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if there is no such rank.
        """
        return device_graph(self.program(rank), self._device(rank), self.mesh)

    def weights(self, rank: int) -> dict[str, Slices]:
        """What one device holds of the model's parameters.

        Parameters
        ----------
        rank
            A rank of the mesh.

        Returns
        -------
        dict of str to Slices
            By the device's name of the parameter: slices of the original tensor.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if there is no such rank.
        """
        return slices_of(self.program(rank), self._device(rank), self.graph.parameters)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the plan: ``plan.json``, and a readable Python file for every program.

        All is written into a folder beside, which then takes the place of an old plan.

        Parameters
        ----------
        folder
            The folder to make; if it exists, it must be empty or hold a plan.

        Raises
        ------
        ParframeError
            Of kind ``output``, if the folder is something else or cannot be written; what was
            there is whole then.
        """
        from parframe.plan.plan_folder import save_plan

        save_plan(self, folder)

    def _device(self, rank: int) -> Device:
        if not 0 <= rank < len(self.devices):
            raise ParframeError(
                "mesh",
                f"rank {rank}",
                f"the plan has {len(self.devices)} devices",
                f"give a rank from 0 to {len(self.devices) - 1}",
            )
        return self.devices[rank]
