"""Bytes that a plan's devices communicate, by kind and mesh axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parframe.checking.findings import Traffic
from parframe.checking.memory import MemorySizes, element_bytes, symbol_values, tensor_bytes
from parframe.checking.samples import evaluate_size
from parframe.graph import Operator, Tensor
from parframe.mesh import Mesh
from parframe.plan import Plan, Program, communicates, group_axes
from parframe.rules.communication import short_name
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.sizes import Size


def plan_traffic(plan: Plan, sizes: MemorySizes) -> tuple[Traffic, ...]:
    """Return the communication of a plan, by kind and mesh axes."""
    communications = {
        name: [op for op in program.operators if communicates(op)]
        for name, program in plan.programs.items()
    }
    known: dict[object, dict[tuple[str, tuple[str, ...]], tuple[int, int]]] = {}
    counts: dict[tuple[str, tuple[str, ...]], int] = {}
    bytes_: dict[tuple[str, tuple[str, ...]], int] = {}
    for device in plan.devices:
        values = symbol_values(plan, device.rank, sizes)
        key = (device.program, tuple(sorted(values.items())))
        if key not in known:
            program = plan.programs[device.program]
            known[key] = _program_traffic(
                communications[device.program], program, values, sizes.dtype, plan.mesh, device.rank
            )
        for kind, (count, size) in known[key].items():
            counts[kind] = max(counts.get(kind, 0), count)
            bytes_[kind] = bytes_.get(kind, 0) + size
    return tuple(Traffic(*kind, counts[kind], bytes_[kind]) for kind in sorted(counts))


def _program_traffic(
    operators: Iterable[Operator],
    program: Program,
    values: Mapping[str, int],
    dtype: str,
    mesh: Mesh,
    rank: int,
) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
    """Return the number of operators and the bytes of one device, by kind and mesh axes."""
    found: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    sizes: dict[Size, int] = {}
    for operator in operators:
        kind = (short_name(operator.target), group_axes(operator))
        inputs = {name: program.tensors[name] for name in operator.inputs}
        if operator.target in DISTRIBUTED_FORMS:
            group_size = mesh.group_size(group_axes(operator), rank)
            size = _sent_bytes(operator, inputs, values, dtype, group_size)
        else:
            size = sum(tensor_bytes(tensor, values, dtype, sizes) for tensor in inputs.values())
        count, before = found.get(kind, (0, 0))
        found[kind] = (count + 1, before + size)
    return found


def _sent_bytes(
    operator: Operator,
    inputs: Mapping[str, Tensor],
    values: Mapping[str, int],
    dtype: str,
    group_size: int,
) -> int:
    """Return the most bytes that a device sends in a distributed form."""
    tensors = dict(zip(operator.slots, (inputs[name] for name in operator.inputs), strict=True))
    shapes = {
        slot: tuple(evaluate_size(size, values) for size in tensor.shape)
        for slot, tensor in tensors.items()
    }
    travels = operator.args["travels"]
    slots = tuple(map(str, travels)) if isinstance(travels, tuple) else ()
    sent = DISTRIBUTED_FORMS[operator.target].count_sent(shapes, slots, group_size)
    return int(sum(count * element_bytes(tensors[slot], dtype) for slot, count in sent.items()))
