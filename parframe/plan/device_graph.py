"""One device's program as a networkx graph."""

from __future__ import annotations

import networkx

from parframe.mesh import Mesh
from parframe.plan.bindings import bound_part, bound_tensor
from parframe.plan.program import Device, Program, group_axes
from parframe.rules.table import communicates


def device_graph(program: Program, device: Device, mesh: Mesh) -> networkx.MultiDiGraph:
    """Return the graph of a device, as `Plan.device` describes it."""
    graph = networkx.MultiDiGraph(rank=device.rank, program=program.name, stage=program.stage)
    home: dict[str, str] = {}
    for kind, parts in (("input", program.inputs), ("parameter", program.parameters)):
        for part in parts:
            graph.add_node(part.name, kind=kind, part=bound_part(part, device))
            home[part.name] = part.name
    tensors = {
        name: bound_tensor(tensor, device.bindings) for name, tensor in program.tensors.items()
    }
    for operator in program.operators:
        graph.add_node(operator.name, kind="operator", operator=operator)
        if communicates(operator):
            graph.nodes[operator.name]["group"] = mesh.group(device.rank, group_axes(operator))
        for value in operator.inputs:
            graph.add_edge(home[value], operator.name, value=value, tensor=tensors[value])
        home.update(dict.fromkeys(operator.outputs, operator.name))
    for position, part in enumerate(program.outputs):
        node = f"output.{position}"
        graph.add_node(node, kind="output", part=bound_part(part, device))
        graph.add_edge(home[part.name], node, value=part.name, tensor=tensors[part.name])
    return graph
