"""Plan: an operator graph partitioned over a mesh."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
import networkx

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import Mesh
from parframe.plan.device_graph import device_graph
from parframe.plan.plan_folder import save_plan
from parframe.plan.program import Device, Note, Program
from parframe.plan.slices import Slices, slices_of
from parframe.strategy import Placing


@attrs.frozen
class Plan:
    """Operator graph partitioned over a mesh.

    Parameters
    ----------
    graph
        The model.
    placing
        The mesh, and the axes over which each named dimension is split.
    programs
        Programs by name. Devices that do the same share a program.
    devices
        One for every rank, in order.
    notes
        Notes on what is replicated, gathered or computed more than once.
    plugins
        Installed distributions that bring the rules of the plan's operators.
    """

    graph: OperatorGraph
    placing: Placing
    programs: Mapping[str, Program]
    devices: tuple[Device, ...]
    notes: tuple[Note, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def mesh(self) -> Mesh:
        """Devices as a named grid."""
        return self.placing.mesh

    def program(self, rank: int) -> Program:
        """Return the program of a rank.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if the plan has no such rank.
        """
        return self.programs[self._device(rank).program]

    def device(self, rank: int) -> networkx.MultiDiGraph:
        """Return the graph of one rank: nodes are operators, edges are tensors.

        Parameters
        ----------
        rank
            A rank of the mesh.

        Returns
        -------
        networkx.MultiDiGraph
            Nodes have a ``kind``: ``"input"``, ``"parameter"`` and ``"output"``, with the ``part``
            of the model's tensor that the rank has, and ``"operator"``, with the ``operator``, and
            the ranks of the ``group`` if it communicates. Edges have the name of the ``value`` and
            the ``tensor``, in which the sizes of this rank replace symbols where they are known.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if the plan has no such rank.
        """
        return device_graph(self.program(rank), self._device(rank), self.mesh)

    def weights(self, rank: int) -> dict[str, Slices]:
        """Return the shards of the model's parameters that one rank has.

        Parameters
        ----------
        rank
            A rank of the mesh.

        Returns
        -------
        dict of str to Slices
            By the rank's name of the parameter: slices of the original tensor.

        Raises
        ------
        ParframeError
            Of kind ``mesh``, if the plan has no such rank.
        """
        return slices_of(self.program(rank), self._device(rank), self.graph.parameters)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the plan: ``plan.json``, and a readable Python file for every program.

        All is written into a temporary folder, which then replaces an old plan.

        Parameters
        ----------
        folder
            The folder to make; if it exists, it must be empty or contain a plan.

        Raises
        ------
        ParframeError
            Of kind ``output``, if the folder contains something else or cannot be written; it
            is left as it was then.
        """
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
