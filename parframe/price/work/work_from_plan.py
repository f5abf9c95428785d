"""Work of a plan, read from its device graphs without any names of models or strategies."""

from __future__ import annotations

from parframe.checking.samples import graph_symbols
from parframe.errors import ParframeError
from parframe.graph import Operator, OperatorGraph
from parframe.plan import Device, Plan, Program, group_axes
from parframe.price.work.operator_list import OperatorList
from parframe.price.work.stage_work import combine_stages, stage_work
from parframe.price.work.tensor_scaling import BATCH, TensorScalings
from parframe.price.work.work import Stage, Work
from parframe.rules.communication import COMMUNICATION_OPERATORS


def work_from_plan(plan: Plan) -> Work:
    """Return the work of one step of a plan.

    Parameters
    ----------
    plan
        Plan of a model whose inputs have a batch and a sequence.

    Returns
    -------
    Work
        Work of the busiest device of every pipeline stage. Operators with a rule that are no
        product, attention or experts count as pointwise. Views, and tables that all sequences
        share, count as nothing.

    Raises
    ------
    ParframeError
        Of kind ``plan``, if the model has no dimension named ``batch``.
    """
    symbols = graph_symbols(plan.graph)
    require_batch(plan.graph, symbols)
    best: dict[int, tuple[float, Stage]] = {}
    known: set[object] = set()
    measured: dict[tuple[object, ...], TensorScalings] = {}
    for device in plan.devices:
        program = plan.programs[device.program]
        bindings = tuple(sorted((k, v) for k, v in device.bindings.items() if k.endswith("_here")))
        if bindings not in measured:
            measured[bindings] = TensorScalings(symbols, device.bindings, plan.mesh.size)
        extents = measured[bindings]
        key = (device.program, tuple(extents.values[0].get(name) for name, _ in bindings))
        if key in known:
            continue
        known.add(key)
        load, stage = stage_work(_listing(plan, program, device, extents))
        if program.stage not in best or load > best[program.stage][0]:
            best[program.stage] = (load, stage)
    return combine_stages(
        [stage for _, (_, stage) in sorted(best.items())], plan.mesh.size, len(plan.graph.layers)
    )


def require_batch(graph: OperatorGraph, symbols: frozenset[str]) -> None:
    """Refuse a model whose inputs have no batch dimension."""
    if BATCH not in symbols:
        raise ParframeError(
            "plan",
            graph.source or "the model",
            "has inputs without a dimension named 'batch'",
            "load it with `dynamic` and name the batch dimension",
        )


def _listing(plan: Plan, program: Program, device: Device, extents: TensorScalings) -> OperatorList:
    def group(axes: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(plan.mesh.group(device.rank, axes))

    operators = tuple(op for op in program.operators if not _between_stages(op))
    parameters = plan.graph.parameters
    return OperatorList(
        operators=operators,
        counts=(1,) * len(operators),
        tensors=program.tensors,
        parameters={part.name: parameters[part.whole] for part in program.parameters},
        outputs=frozenset(part.name for part in program.outputs),
        sends=tuple(_sent(program.operators, plan, device)),
        scalings=extents,
        group=group,
    )


def _sent(
    operators: tuple[Operator, ...], plan: Plan, device: Device
) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the sends of a device to other stages: the value, the kind, and the ranks."""
    found = []
    for operator in operators:
        if _between_stages(operator) and operator.inputs:
            group = tuple(plan.mesh.group(device.rank, group_axes(operator)))
            peer = operator.args.get("peer")
            to = group if not isinstance(peer, int) else (device.rank, group[peer])
            found.append((operator.inputs[0], COMMUNICATION_OPERATORS[operator.target].name, to))
    return found


def _between_stages(operator: Operator) -> bool:
    kind = COMMUNICATION_OPERATORS.get(operator.target)
    return kind is not None and kind.stages
