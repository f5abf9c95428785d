"""Checks that programs are well formed: names, shapes, regions, groups and bindings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from parframe.checking.concrete_types import region_symbols
from parframe.checking.findings import Finding
from parframe.checking.samples import graph_symbols, symbol_names
from parframe.graph import BYTES, Arg, Operator, OperatorGraph, Ref, Tensor
from parframe.layout import Join, Span
from parframe.mesh import Mesh, StagedMesh
from parframe.plan import Device, Part, Plan, Program
from parframe.rules.communication import PLAN_OPERATORS
from parframe.rules.table import DISTRIBUTED_FORMS

_REDUCTIONS = frozenset({"sum", "max", "min", "prod", "any", "all"})


def check_structure(plan: Plan) -> list[Finding]:
    """Return findings for what is malformed in a plan's programs and devices."""
    findings = [Finding("structure", (), message) for message in _device_faults(plan)]
    if findings:
        return findings
    ranks: dict[str, list[int]] = {}
    for device in plan.devices:
        ranks.setdefault(device.program, []).append(device.rank)
    known = graph_symbols(plan.graph)
    for name, program_ranks in ranks.items():
        program = plan.programs.get(name)
        if program is None:
            findings.append(Finding("structure", tuple(program_ranks), f"no program {name!r}"))
            continue
        for operator, message in _program_faults(program, plan.graph, plan.mesh, program_ranks[0]):
            own, module = (operator.name, operator.module) if operator is not None else ("", "")
            findings.append(
                Finding("structure", tuple(program_ranks), message, operator=own, module=module)
            )
        symbols = _symbols(program) - known
        for device in plan.devices:
            if device.program == name:
                findings.extend(_binding_findings(device, symbols, known))
    return findings


def _device_faults(plan: Plan) -> Iterator[str]:
    ranks = [device.rank for device in plan.devices]
    if ranks != list(range(plan.mesh.size)):
        yield f"the devices are not the ranks 0 to {plan.mesh.size - 1} in order"
    elif isinstance(plan.mesh, StagedMesh):
        for rank in ranks:
            program = plan.programs.get(plan.devices[rank].program)
            if program is not None and program.stage != plan.mesh.stage(rank):
                yield f"rank {rank} is in stage {plan.mesh.stage(rank)}, not {program.stage}"


def _binding_findings(
    device: Device, symbols: frozenset[str], known: frozenset[str]
) -> Iterator[Finding]:
    missing = sorted(symbols - set(device.bindings))
    if missing:
        yield Finding("structure", (device.rank,), f"{', '.join(missing)} is not bound")
    for name, size in device.bindings.items():
        unknown = set(symbol_names(size)) - known
        if unknown or name in known:
            yield Finding("structure", (device.rank,), f"{name} is bound to {size}")


def _program_faults(
    program: Program, graph: OperatorGraph, mesh: Mesh, rank: int
) -> Iterator[tuple[Operator | None, str]]:
    defined: set[str] = set()
    for parts, wholes in ((program.inputs, graph.inputs), (program.parameters, graph.parameters)):
        for part in parts:
            if part.name in defined:
                yield None, f"{part.name!r} occurs twice"
            defined.add(part.name)
            yield from ((None, message) for message in _part_faults(part, wholes, program))
    names: set[str] = set()
    for operator in program.operators:
        if operator.name in names:
            yield operator, "another operator has the same name"
        names.add(operator.name)
        for value in operator.inputs:
            if value not in defined:
                yield operator, f"uses {value!r} before it is defined"
        for message in _argument_faults(operator, mesh, rank):
            yield operator, message
        for value in operator.outputs:
            if value in defined:
                yield operator, f"defines {value!r} a second time"
            defined.add(value)
            if not _has_shape(program, value):
                yield operator, f"defines {value!r}, which has no recorded shape"
    outputs = {name: graph.tensors[name] for name in graph.output_names if name in graph.tensors}
    for part in program.outputs:
        if part.name not in defined:
            yield None, f"returns {part.name!r}, which is not defined"
        yield from ((None, message) for message in _part_faults(part, outputs, program))
    for state in program.states:
        if state.value not in defined:
            yield None, f"stores {state.value!r}, which is not defined"


def _has_shape(program: Program, value: str) -> bool:
    tensor = program.tensors.get(value)
    return tensor is not None and tensor.name == value and tensor.dtype in BYTES


def _part_faults(part: Part, wholes: Mapping[str, Tensor], program: Program) -> Iterator[str]:
    whole = wholes.get(part.whole)
    if whole is None:
        yield f"the model has no {part.whole!r}"
    elif len(part.region) != len(whole.shape):
        yield f"the region of {part.name!r} has {len(part.region)} dims, not {len(whole.shape)}"
    elif not _has_shape(program, part.name):
        yield f"{part.name!r} has no recorded shape"
    elif program.tensors[part.name].dtype != whole.dtype:
        yield f"{part.name!r} is {program.tensors[part.name].dtype}, not {whole.dtype}"


def _argument_faults(operator: Operator, mesh: Mesh, rank: int) -> Iterator[str]:
    """Yield the faults in the arguments of an operator that only plans have."""
    if operator.target in DISTRIBUTED_FORMS:
        yield from _distributed_faults(operator, mesh, rank)
        return
    plan_operator = PLAN_OPERATORS.get(operator.target)
    if plan_operator is None:
        if not operator.outputs:
            yield f"{operator.target} is unknown or has no output"
        return
    required = frozenset(plan_operator.arguments)
    names = frozenset(operator.args)
    if not required <= names or not names <= required.union(plan_operator.optional):
        yield f"has the arguments {', '.join(sorted(names))}, not {', '.join(sorted(required))}"
        return
    if "input" in names and not isinstance(operator.args["input"], Ref):
        yield "its input is not a tensor"
    if plan_operator.pattern != "local":
        yield from _communication_faults(operator, mesh, rank)
    elif not _is_regions(operator.args["part"]):
        yield "its part is not a region"
    if len(operator.outputs) not in plan_operator.results:
        yield f"has {len(operator.outputs)} outputs"


def _distributed_faults(operator: Operator, mesh: Mesh, rank: int) -> Iterator[str]:
    """Yield the faults in the arguments of a distributed form."""
    missing = [slot for slot in ("travels", "axes", "tag") if slot not in operator.args]
    if missing:
        yield f"has no {', '.join(missing)}"
        return
    travels = operator.args["travels"]
    if not isinstance(travels, tuple) or not set(travels) <= set(operator.slots):
        yield f"communicates {travels}, which are not arguments of it"
    yield from _communication_faults(operator, mesh, rank)
    if len(operator.outputs) != 1:
        yield f"has {len(operator.outputs)} outputs"


def _communication_faults(operator: Operator, mesh: Mesh, rank: int) -> Iterator[str]:
    """Yield the faults in the mesh axes, ranks and regions of a communication operator."""
    axes = operator.args["axes"]
    if (
        not isinstance(axes, tuple)
        or not all(isinstance(axis, str) for axis in axes)
        or not mesh.has_groups([str(axis) for axis in axes])
    ):
        yield f"its axes are {axes}, the mesh has {', '.join(mesh.names)}"
        return
    count = mesh.group_size([str(axis) for axis in axes], rank)
    for slot in ("peer", "root"):
        number = operator.args.get(slot, 0)
        if not isinstance(number, int) or not 0 <= number < count:
            yield f"its {slot} is {number}, the group has {count} ranks"
    for slot in ("parts", "sends"):
        parts = operator.args.get(slot)
        if parts is not None and not (
            isinstance(parts, tuple) and len(parts) == count and all(map(_is_regions, parts))
        ):
            yield f"its {slot} are not {count} regions"
    if operator.args.get("reduction", "sum") not in _REDUCTIONS:
        yield f"its reduction is {operator.args['reduction']}"


def _is_regions(arg: object) -> bool:
    return isinstance(arg, tuple) and all(_is_region(axis) for axis in arg)


def _is_region(axis: object) -> bool:
    return isinstance(axis, tuple) and all(
        isinstance(part, Span)
        or (isinstance(part, Join) and all(_is_region(inner) for inner in part.parts))
        for part in axis
    )


def _symbols(program: Program) -> frozenset[str]:
    """Return all symbols of a program."""
    found: set[str] = set()
    for tensor in program.tensors.values():
        found.update(name for size in tensor.shape for name in symbol_names(size))
    for operator in program.operators:
        for arg in operator.args.values():
            found.update(_arg_symbols(arg))
    for part in (*program.inputs, *program.parameters, *program.outputs):
        for axis in part.region:
            found.update(region_symbols(axis))
    return frozenset(found)


def _arg_symbols(arg: Arg) -> Iterator[str]:
    if isinstance(arg, Span | Join):
        yield from region_symbols((arg,))
    elif isinstance(arg, tuple):
        for part in arg:
            yield from _arg_symbols(part)
    elif hasattr(arg, "free_symbols"):
        yield from symbol_names(arg)
