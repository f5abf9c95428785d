"""Partitioning of an operator graph over a mesh into a plan.

Every block is placed once (``graph_placement``, ``block_placement``), made local for every shape of
device (``localize``), written out over all calls (``step_sequence``), divided into pipeline stages
(``stage_balance``, ``stage_assignment``) and written as programs (``regular_plan``,
``staged_plan``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from parframe.dims import name_dimensions
from parframe.dims.halves import halve_dimensions
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph, unfold_blocks
from parframe.mesh import Mesh, StagedMesh
from parframe.partitioning.actions import Compute
from parframe.partitioning.conflicting_splits import check_splits
from parframe.partitioning.cuts import Cut, find_cuts
from parframe.partitioning.decomposition import expand
from parframe.partitioning.graph_placement import PlacedGraph, place_graph
from parframe.partitioning.regular_plan import write_regular_plan
from parframe.partitioning.staged_plan import write_staged_plan
from parframe.plan import Note, Plan
from parframe.rules import Rule
from parframe.strategy import Placing

if TYPE_CHECKING:
    from parframe.spec import Spec


def partition_placing(
    graph: OperatorGraph,
    placing: Placing,
    rules: Iterable[Rule] = (),
    on_missing_rule: str = "error",
) -> Plan:
    """Partition a graph over a mesh; see ``partition``."""
    rules = tuple(rules)
    written = graph
    while True:
        dimensions = name_dimensions(written, rules)
        uses = Counter(call.block for call in written.calls)
        repeated = {block for block in dimensions.inconsistent_blocks if uses[block] > 1}
        if repeated:
            graph, written = unfold_blocks(graph, repeated), unfold_blocks(written, repeated)
            continue
        dimensions = halve_dimensions(dimensions, placing.zigzag)
        replicate = on_missing_rule == "replicate"
        cuts: dict[Mesh, tuple[Cut, ...]] = {}
        placed: dict[Mesh, PlacedGraph] = {}
        for mesh in dict.fromkeys(placing.mesh.submeshes):
            cuts[mesh] = find_cuts(dimensions, placing.within(mesh))
            check_splits(written, dimensions, placing.within(mesh), cuts[mesh])
            placed[mesh] = place_graph(written, dimensions, cuts[mesh], replicate)
        simpler = expand(written, dimensions.bound, _gathering(placed.values()))
        if simpler is written:
            for mesh, own in placed.items():
                _verify_distributed_forms(placing.within(mesh), own)
            if isinstance(placing.mesh, StagedMesh):
                plan = write_staged_plan(written, dimensions, placing, cuts, replicate)
            else:
                mesh = placing.mesh
                plan = write_regular_plan(written, dimensions, placing, cuts[mesh], placed[mesh])
            remarks = (Note("remark", "the model", remark, 0) for remark in graph.remarks)
            return attrs.evolve(plan, graph=graph, notes=(*remarks, *plan.notes))
        written = simpler


def partition(graph: OperatorGraph, by: str | Path | Spec) -> Plan:
    """Partition a model.

    Parameters
    ----------
    graph
        The model, from ``parframe.load``.
    by
        A composite such as ``"TP2PP2"``, a specification, or the path of one (``spec.toml``).

    Returns
    -------
    Plan
        A program for every device. Planning the same input twice gives the same plan.

    Raises
    ------
    ParframeError
        If the composite or specification is wrong, an operator without a rule stands in the way,
        or the model has not what the strategies split.

    Examples
    --------
    >>> plan = parframe.partition(parframe.load("path/to/model"), "TP2PP2")  # doctest: +SKIP
    """
    spec = _spec(by)
    _check_layers(graph, spec)
    plan = partition_placing(graph, spec.placing(), spec.rules(), spec.on_missing_rule)
    return attrs.evolve(plan, plugins=spec.rule_plugins())


def _gathering(placed: Iterable[PlacedGraph]) -> dict[str, frozenset[str]]:
    """For every block, the operators that gather a split axis on some mesh."""
    found: dict[str, frozenset[str]] = {}
    for own in placed:
        for block, names in own.gathering.items():
            found[block] = found.get(block, frozenset()) | names
    return found


def _verify_distributed_forms(placing: Placing, placed: PlacedGraph) -> None:
    """Refuse a distributed form that a strategy requires and no operator has."""
    computed = (a for block in placed.blocks.values() for a in block.actions)
    found = {
        (axis, action.form.name)
        for action in computed
        if isinstance(action, Compute) and action.form is not None
        for axis in action.axes
    }
    for axis, names in placing.distributed_forms.items():
        for name in names:
            missed = not name.endswith("?") and (axis, name) not in found
            if missed and placing.mesh.degree(axis) > 1:
                raise ParframeError(
                    "partition",
                    f"axis {axis}",
                    f"no operator of the model has the distributed form {name!r}",
                    "let the devices gather instead",
                )


def _check_layers(graph: OperatorGraph, spec: Spec) -> None:
    """Refuse stages that have not just the layers of the model."""
    count = len(graph.layers)
    if spec.stages and spec.stages[-1].last != count - 1:
        raise ParframeError(
            "spec",
            spec.origin.where("stages"),
            f"end with layer {spec.stages[-1].last}, and the model has {count} layers",
            f"let the last stage end with layer {count - 1}" if count else "leave it out",
        )


def _spec(by: str | Path | Spec) -> Spec:
    from parframe.spec import Spec

    if isinstance(by, Spec):
        return by
    if isinstance(by, Path) or str(by).endswith(".toml"):
        return Spec.read(Path(by))
    return Spec(parallel=by)
