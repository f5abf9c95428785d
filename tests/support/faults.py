"""Faults to plant in correct plans: for each kind, a function that plants one at random.

Every fault changes what a plan computes, or makes it impossible to execute; where a change could
be without effect (a reduction over equal values, an operator that does nothing), the place is
left out by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import attrs

from parframe.graph import (
    Arg,
    Block,
    Call,
    Input,
    Operator,
    OperatorGraph,
    Parameter,
    Ref,
    Tensor,
    rename_arg,
)
from parframe.layout import Join, Region, Span
from parframe.mesh import Mesh
from parframe.partitioning import partition_placing
from parframe.plan import COMMUNICATION_OPERATORS, Device, Part, Plan, Program, communicates
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.sizes import floordiv, offset, simplify, substitute, symbol
from parframe.strategy import Placing, Split

Planter = Callable[[Plan, Random], Plan | None]

FAULTS: dict[str, Planter] = {}
"""Every kind of fault; those of ``COMMUNICATION_FAULTS`` are of communication."""

COMMUNICATION_FAULTS: set[str] = set()

REDUCING = ("parframe.all_reduce", "parframe.reduce_scatter")
COLLECTIVES = (*REDUCING, "parframe.all_gather")
ACTIVE = (
    "aten.silu.default", "aten.gelu.default", "aten.tanh.default", "aten.rsqrt.default",
    "aten.neg.default", "aten.pow.Tensor_Scalar", "aten.cos.default", "aten.sin.default",
    "aten.relu.default",
)  # fmt: skip
"""Operators with one tensor in and one of its shape out, which change every value."""
MAKING = (
    "aten.linear.default", "aten.mul.Tensor", "aten.silu.default", "aten.addmm.default",
    "aten.layer_norm.default", "aten.rsqrt.default", "aten.neg.default", "aten.tanh.default",
)  # fmt: skip


def fault(communication: bool = False) -> Callable[[Planter], Planter]:
    def register(planter: Planter) -> Planter:
        FAULTS[planter.__name__] = planter
        if communication:
            COMMUNICATION_FAULTS.add(planter.__name__)
        return planter

    return register


# editing plans ---------------------------------------------------------------------------


def replace_program(plan: Plan, name: str, program: Program) -> Plan:
    return attrs.evolve(plan, programs={**plan.programs, name: program})


def change_on_one_rank(
    plan: Plan, rank: int, change: Callable[[Program], Program | None]
) -> Plan | None:
    """Change the program of one device only."""
    device = plan.devices[rank]
    changed = change(plan.programs[device.program])
    if changed is None:
        return None
    name = f"{device.program}_{rank}"
    devices = tuple(attrs.evolve(d, program=name) if d.rank == rank else d for d in plan.devices)
    programs = {**plan.programs, name: attrs.evolve(changed, name=name)}
    used = {d.program for d in devices}
    programs = {key: program for key, program in programs.items() if key in used}
    return attrs.evolve(plan, devices=devices, programs=programs)


def change_one_program(
    plan: Plan, random: Random, change: Callable[[Program], Program | None]
) -> Plan | None:
    """Change one program, on all of its devices."""
    name = random.choice(sorted(plan.programs))
    changed = change(plan.programs[name])
    return None if changed is None else replace_program(plan, name, changed)


def replace_operator(program: Program, old: Operator, *new: Operator) -> Program:
    operators: list[Operator] = []
    for operator in program.operators:
        operators.extend(new if operator is old else (operator,))
    return attrs.evolve(program, operators=tuple(operators))


def replace_args(operator: Operator, **args: Arg) -> Operator:
    return attrs.evolve(operator, args={**operator.args, **args})


def remove_args(operator: Operator, *slots: str) -> Operator:
    return attrs.evolve(operator, args={k: v for k, v in operator.args.items() if k not in slots})


def redirect_uses(program: Program, old: str, new: str, after: Operator | None = None) -> Program:
    """Replace every use of a value by another value."""
    names = {old: new}
    operators = []
    active = after is None
    for operator in program.operators:
        if active:
            args = {slot: rename_arg(arg, names) for slot, arg in operator.args.items()}
            operator_ = attrs.evolve(operator, args=args)
        else:
            operator_ = operator
        operators.append(operator_)
        active = active or operator is after
    return attrs.evolve(
        program,
        operators=tuple(operators),
        outputs=tuple(attrs.evolve(p, name=new) if p.name == old else p for p in program.outputs),
        states=tuple(attrs.evolve(s, value=new) if s.value == old else s for s in program.states),
    )


def choose_operator(
    random: Random, program: Program, *targets: str, also: Callable[[Operator], bool] | None = None
) -> Operator | None:
    found = [op for op in program.operators if op.target in targets and (also is None or also(op))]
    return random.choice(found) if found else None


def group_of(plan: Plan, rank: int, operator: Operator) -> tuple[int, ...]:
    axes: Any = operator.args["axes"]
    return plan.mesh.group(rank, axes)


def rank_of(plan: Plan, name: str) -> int:
    return next(device.rank for device in plan.devices if device.program == name)


def bind_region(region: tuple[Region, ...], device: Device) -> tuple[Region, ...]:
    return tuple(
        tuple(
            Span(*(substitute(n, device.bindings) for n in (s.size, s.start, s.stop)))
            if isinstance(s, Span)
            else Join(bind_region(s.parts, device))
            for s in axis
        )
        for axis in region
    )


def split_parts(program: Program, parts: Sequence[Part]) -> list[Part]:
    """Return the parts of which a device has one range along some dim."""
    return [p for p in parts if p.name in program.tensors and split_axis(p.region) is not None]


def split_axis(region: Sequence[Region]) -> int | None:
    for number, axis in enumerate(region):
        if len(axis) == 1 and isinstance(axis[0], Span) and not axis[0].whole:
            return number
    return None


def move_region(region: tuple[Region, ...], by: int, grow: int = 0) -> tuple[Region, ...]:
    """Move the range of a region, or extend its end."""
    at = split_axis(region)
    assert at is not None
    (span,) = region[at]
    assert isinstance(span, Span)
    new = Span(span.size, simplify(span.start + by), simplify(span.stop + by + grow))
    return (*region[:at], (new,), *region[at + 1 :])


def replace_part(program: Program, kind: str, old: Part, new: Part) -> Program:
    parts = tuple(new if part is old else part for part in getattr(program, kind))
    return attrs.evolve(program, **{kind: parts})


def replace_tensor(program: Program, name: str, **changes: Any) -> Program:
    tensors = {**program.tensors, name: attrs.evolve(program.tensors[name], **changes)}
    return attrs.evolve(program, tensors=tensors)


# distributed operators -------------------------------------------------------------------


@fault(communication=True)
def distributed_over_other_axes(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *DISTRIBUTED_FORMS)
        if operator is None:
            return None
        axes = tuple(random.sample(plan.mesh.names, random.randint(1, len(plan.mesh.names))))
        if set(axes) == set(operator.args["axes"]):  # type: ignore[arg-type]
            return None
        return replace_operator(program, operator, replace_args(operator, axes=axes))

    return change_one_program(plan, random, change)


@fault(communication=True)
def not_distributed(plan: Plan, random: Random) -> Plan | None:
    """Each device computes on its own part only."""

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *DISTRIBUTED_FORMS)
        if operator is None:
            return None
        alone = remove_args(operator, "travels", "axes", "tag")
        alone = attrs.evolve(alone, target="parframe.attention.default")
        return replace_operator(program, operator, alone)

    return change_one_program(plan, random, change)


@fault(communication=True)
def input_not_communicated(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *DISTRIBUTED_FORMS)
        if operator is None:
            return None
        travels: Any = operator.args["travels"]
        kept = random.choice(travels)
        fewer = tuple(slot for slot in travels if slot != kept)
        return replace_operator(program, operator, replace_args(operator, travels=fewer))

    return change_one_program(plan, random, change)


@fault(communication=True)
def distributed_with_another_argument(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *DISTRIBUTED_FORMS)
        if operator is None:
            return None
        changes: dict[str, Arg] = {"scale": 0.25, "window": 3, "softcap": 2.0}
        slot = random.choice(sorted(changes))
        return replace_operator(program, operator, replace_args(operator, **{slot: changes[slot]}))

    return change_one_program(plan, random, change)


@fault(communication=True)
def distributed_with_the_positions_of_another_rank(plan: Plan, random: Random) -> Plan | None:
    """Keys pass around the ring with the positions of the next device's keys."""
    name = random.choice(sorted(plan.programs))
    program = plan.programs[name]
    operator = choose_operator(
        random, program, *DISTRIBUTED_FORMS, also=lambda op: "key_positions" in op.args
    )
    if operator is None:
        return None
    (own,) = (
        n for s, n in zip(operator.slots, operator.inputs, strict=True) if s == "key_positions"
    )
    cut = next(op for op in program.operators if own in op.outputs)
    symbols = {
        bound_: offset(f"next_{bound_}") for bound_ in plan.devices[rank_of(plan, name)].bindings
    }
    other = f"{own}~next"
    part: Any = cut.args["part"]
    taken = attrs.evolve(
        replace_args(cut, part=bind_region(part, Device(0, name, symbols))),
        name=other,
        outputs=(other,),
    )
    tensor = program.tensors[own]
    shape = tuple(substitute(size, symbols) for size in tensor.shape)
    changed = replace_operator(program, cut, cut, taken)
    changed = replace_operator(changed, operator, replace_args(operator, key_positions=Ref(other)))
    tensors = {**changed.tensors, other: attrs.evolve(tensor, name=other, shape=shape)}
    devices = []
    for device in plan.devices:
        group = group_of(plan, device.rank, operator)
        theirs = plan.devices[group[(group.index(device.rank) + 1) % len(group)]].bindings
        more = {f"next_{bound_}": size for bound_, size in theirs.items()}
        used = device.program == name
        devices.append(attrs.evolve(device, bindings={**device.bindings, **more} if used
                                    else device.bindings))  # fmt: skip
    plan = attrs.evolve(plan, devices=tuple(devices))
    return replace_program(plan, name, attrs.evolve(changed, tensors=tensors))


# communication ---------------------------------------------------------------------------


@fault(communication=True)
def missing_collective(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *COLLECTIVES)
        if operator is None:
            return None
        program = redirect_uses(program, operator.outputs[0], operator.inputs[0], after=operator)
        return replace_operator(program, operator)

    return change_one_program(plan, random, change)


@fault(communication=True)
def missing_collective_on_one_rank(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.all_reduce")
        if operator is None:
            return None
        program = redirect_uses(program, operator.outputs[0], operator.inputs[0], after=operator)
        return replace_operator(program, operator)

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault(communication=True)
def doubled_collective(plan: Plan, random: Random) -> Plan | None:
    """A sum is reduced twice, on all devices."""
    names = sorted(plan.programs)
    operator = choose_operator(random, plan.programs[names[0]], "parframe.all_reduce")
    if operator is None:
        return None
    (output,) = operator.outputs
    twice = f"{output}_twice"
    programs = {}
    for name, program in plan.programs.items():
        mine = next((op for op in program.operators if op.name == operator.name), None)
        if mine is not None:
            tensor = attrs.evolve(program.tensors[output], name=twice)
            program = redirect_uses(program, output, twice, after=mine)
            again = attrs.evolve(
                replace_args(mine, input=Ref(output), tag=f"{mine.args['tag']}_twice"),
                name=twice, outputs=(twice,),
            )  # fmt: skip
            program = replace_operator(program, mine, mine, again)
            program = attrs.evolve(program, tensors={**program.tensors, twice: tensor})
        programs[name] = program
    return attrs.evolve(plan, programs=programs)


@fault(communication=True)
def doubled_collective_on_one_rank(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *COLLECTIVES)
        if operator is None:
            return None
        twice = f"{operator.outputs[0]}_twice"
        tensor = attrs.evolve(program.tensors[operator.outputs[0]], name=twice)
        again = attrs.evolve(operator, name=twice, outputs=(twice,))
        program = replace_operator(program, operator, operator, again)
        return attrs.evolve(program, tensors={**program.tensors, twice: tensor})

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault(communication=True)
def wrong_kind_of_collective(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *COLLECTIVES)
        if operator is None:
            return None
        if operator.target == "parframe.all_reduce":
            new = remove_args(replace_args(operator, root=0), "reduction")
            new = attrs.evolve(new, target="parframe.broadcast")
        elif operator.target == "parframe.all_gather":
            new = remove_args(replace_args(operator, reduction="sum"), "parts")
            new = attrs.evolve(new, target="parframe.all_reduce")
        else:
            new = attrs.evolve(remove_args(operator, "reduction"), target="parframe.all_gather")
        return replace_operator(program, operator, new)

    return change_one_program(plan, random, change)


@fault(communication=True)
def wrong_group_axes(plan: Plan, random: Random) -> Plan | None:
    others = [name for name, degree in plan.mesh.axes if degree > 1]

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *COLLECTIVES, "parframe.send", "parframe.recv")
        if operator is None:
            return None
        other = [name for name in others if (name,) != operator.args["axes"]]
        if not other:
            return None
        return replace_operator(
            program, operator, replace_args(operator, axes=(random.choice(other),))
        )

    return change_one_program(plan, random, change)


@fault(communication=True)
def wrong_reduction(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *REDUCING)
        if operator is None:
            return None
        other = random.choice(["max", "min", "prod"])
        return replace_operator(program, operator, replace_args(operator, reduction=other))

    return change_one_program(plan, random, change)


@fault(communication=True)
def gathered_in_another_order(plan: Plan, random: Random) -> Plan | None:
    """The parts of two ranks, of equal size, are swapped on all devices."""
    found = [
        op
        for program in plan.programs.values()
        for op in program.operators
        if op.target in ("parframe.all_gather", "parframe.reduce_scatter")
    ]
    if not found:
        return None
    name = random.choice(found).name
    programs = {}
    for key, program in plan.programs.items():
        operator = next((op for op in program.operators if op.name == name), None)
        if operator is not None:
            parts: Any = operator.args["parts"]
            i, j = len(parts) - 2, len(parts) - 1
            if parts[i] == parts[j]:
                return None
            swapped = list(parts)
            swapped[i], swapped[j] = parts[j], parts[i]
            program = replace_operator(
                program, operator, replace_args(operator, parts=tuple(swapped))
            )
        programs[key] = program
    return attrs.evolve(plan, programs=programs) if programs != dict(plan.programs) else None


@fault(communication=True)
def part_off_by_one(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(
            random, program, "parframe.all_gather", "parframe.reduce_scatter"
        )
        if operator is None:
            return None
        parts: Any = list(operator.args["parts"])  # type: ignore[call-overload]
        at = random.randrange(len(parts))
        if split_axis(parts[at]) is None:
            return None
        parts[at] = move_region(parts[at], 1 if at == 0 else -1)
        return replace_operator(program, operator, replace_args(operator, parts=tuple(parts)))

    return change_one_program(plan, random, change)


@fault(communication=True)
def shard_of_the_wrong_rank(plan: Plan, random: Random) -> Plan | None:
    """One device gets its neighbor's part of a weight."""
    rank = random.randrange(plan.mesh.size)
    device = plan.devices[rank]
    program = plan.programs[device.program]
    others = [d for d in plan.devices if d.program == device.program and d.rank != rank]
    parts = split_parts(program, program.parameters)
    if not others or not parts:
        return None
    part, other = random.choice(parts), random.choice(others)
    theirs = bind_region(part.region, other)
    if theirs == bind_region(part.region, device):
        return None
    new = attrs.evolve(part, region=theirs)
    return change_on_one_rank(plan, rank, lambda p: replace_part(p, "parameters", part, new))


@fault(communication=True)
def cut_of_the_wrong_rank(plan: Plan, random: Random) -> Plan | None:
    """A local slice (a shard) takes another device's range."""
    rank = random.randrange(plan.mesh.size)
    device = plan.devices[rank]
    program = plan.programs[device.program]
    operator = choose_operator(random, program, "parframe.shard")
    others = [d for d in plan.devices if d.program == device.program and d.rank != rank]
    if operator is None or not others:
        return None
    part: Any = operator.args["part"]
    theirs = bind_region(part, random.choice(others))
    if theirs == bind_region(part, device):
        return None
    return change_on_one_rank(
        plan, rank, lambda p: replace_operator(p, operator, replace_args(operator, part=theirs))
    )


@fault(communication=True)
def swapped_tags(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        found = [op for op in program.operators if op.target in COLLECTIVES]
        if len(found) < 2:
            return None
        first, second = random.sample(found, 2)
        if first.args["axes"] != second.args["axes"]:
            return None
        one = replace_args(first, tag=second.args["tag"])
        two = replace_args(second, tag=first.args["tag"])
        return replace_operator(replace_operator(program, first, one), second, two)

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


def add_probes(plan: Plan, axes: Sequence[str]) -> Plan | None:
    """Return a correct plan in which a weight is split and gathered over each of some mesh axes."""
    programs = {}
    bindings: dict[int, dict[str, Any]] = {d.rank: dict(d.bindings) for d in plan.devices}
    for name, program in plan.programs.items():
        scales = {
            name
            for op in program.operators
            if op.target in ("aten.layer_norm.default", "aten.mul.Tensor")
            for name in op.inputs
        }
        whole = [
            p
            for p in program.parameters
            if p.name in scales and len(p.region) == 1 and split_axis(p.region) is None
        ]
        if not whole:
            return None
        part = whole[0]
        tensor = program.tensors[part.name]
        (size,) = tensor.shape
        operators: list[Operator] = []
        tensors = dict(program.tensors)
        for axis in axes:
            degree = plan.mesh.degree(axis)
            if not isinstance(size, int) or size % degree or degree == 1:
                return None
            each = size // degree
            start = offset(f"probe_{axis}_start")
            cut, full = f"probe_{axis}_cut", f"probe_{axis}"
            tensors[cut] = Tensor(cut, (each,), tensor.dtype)
            tensors[full] = Tensor(full, (size,), tensor.dtype)
            operators.append(
                Operator(cut, "parframe.shard", {
                    "input": Ref(part.name), "part": ((Span(size, start, start + each),),),
                }, (cut,))
            )  # fmt: skip
            parts = tuple(((Span(size, i * each, (i + 1) * each),),) for i in range(degree))
            operators.append(
                Operator(full, "parframe.all_gather", {
                    "input": Ref(cut), "axes": (axis,), "parts": parts, "tag": full,
                }, (full,))
            )  # fmt: skip
            for device in plan.devices:
                bindings[device.rank][start.name] = each * plan.mesh.index(device.rank, (axis,))
        programs[name] = attrs.evolve(
            redirect_uses(program, part.name, f"probe_{axes[0]}"), tensors=tensors
        )
        programs[name] = attrs.evolve(
            programs[name], operators=(*operators, *programs[name].operators)
        )
    devices = tuple(attrs.evolve(d, bindings=bindings[d.rank]) for d in plan.devices)
    return attrs.evolve(plan, programs=programs, devices=devices)


@fault(communication=True)
def groups_in_opposite_order(plan: Plan, random: Random) -> Plan | None:
    axes = [name for name, degree in plan.mesh.axes if degree > 1 and name != "pp"]
    if len(axes) < 2:
        return None
    probed = add_probes(plan, axes)
    if probed is None:
        return None

    def change(program: Program) -> Program:
        first, second, *rest = [program.operators[i : i + 2] for i in (0, 2)]
        return attrs.evolve(
            program,
            operators=(*second, *first, *program.operators[4:], *(o for r in rest for o in r)),
        )

    # every second device of the grid, so that each waits for the next all the way round
    found: Plan | None = probed
    offset_ = random.randrange(2)
    for rank in range(plan.mesh.size):
        places = plan.mesh.coordinates(rank)
        if found is not None and (sum(places[axis] for axis in axes) + offset_) % 2 == 0:
            found = change_on_one_rank(found, rank, change)
    return found


def use_broadcasts(plan: Plan) -> Plan | None:
    """Return a correct plan of two stages with broadcasts in place of sends and recvs."""
    if plan.mesh.names.count("pp") == 0 or plan.mesh.degree("pp") != 2:
        return None
    programs = {}
    for name, program in plan.programs.items():
        for operator in program.operators:
            if operator.target in ("parframe.send", "parframe.recv"):
                new = attrs.evolve(
                    remove_args(replace_args(operator, root=0), "peer"), target="parframe.broadcast"
                )
                program = replace_operator(program, operator, new)
        programs[name] = program
    return attrs.evolve(plan, programs=programs)


@fault(communication=True)
def wrong_root(plan: Plan, random: Random) -> Plan | None:
    spoken = use_broadcasts(plan)
    if spoken is None:
        return None

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.broadcast")
        return (
            None
            if operator is None
            else replace_operator(program, operator, replace_args(operator, root=1))
        )

    if random.random() < 0.5:
        return change_on_one_rank(spoken, random.randrange(plan.mesh.size), change)
    programs = {name: change(program) for name, program in spoken.programs.items()}
    if None in programs.values():
        return None
    return attrs.evolve(spoken, programs=programs)


@fault(communication=True)
def wrong_peer(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.send", "parframe.recv")
        if operator is None:
            return None
        peer: Any = operator.args["peer"]
        degree = plan.mesh.degree("pp")
        other = random.choice([i for i in range(degree) if i != peer])
        return replace_operator(program, operator, replace_args(operator, peer=other))

    return change_one_program(plan, random, change)


@fault(communication=True)
def missing_send(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.send")
        return None if operator is None else replace_operator(program, operator)

    if random.random() < 0.5:
        return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)
    return change_one_program(plan, random, change)


@fault(communication=True)
def missing_recv(plan: Plan, random: Random) -> Plan | None:
    """A received value becomes an input of the program."""

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.recv")
        if operator is None:
            return None
        name = operator.outputs[0]
        tensor = program.tensors[name]
        made = Operator(
            operator.name, "aten.zeros.default",
            {"size": tensor.shape, "dtype": tensor.dtype}, (name,), origin=operator.origin,
        )  # fmt: skip
        return replace_operator(program, operator, made)

    if random.random() < 0.5:
        return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)
    return change_one_program(plan, random, change)


@fault(communication=True)
def another_value_sent(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.send")
        if operator is None:
            return None
        other = choose_other_value(random, program, operator.inputs[0], operator)
        if other is None:
            return None
        return replace_operator(program, operator, replace_args(operator, input=Ref(other)))

    return change_one_program(plan, random, change)


@fault(communication=True)
def wrong_tag(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *COMMUNICATION_OPERATORS, *DISTRIBUTED_FORMS)
        if operator is None:
            return None
        return replace_operator(
            program, operator, replace_args(operator, tag=f"{operator.args['tag']}_other")
        )

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault(communication=True)
def collective_moved_before_another(plan: Plan, random: Random) -> Plan | None:
    """Two collectives of one group run in another order on one device."""
    axes = [name for name, degree in plan.mesh.axes if degree > 1 and name != "pp"]
    if not axes:
        return None
    probed = add_probes(plan, axes[:1])
    if probed is None:
        return None

    def change(program: Program) -> Program | None:
        probe = program.operators[:2]
        rest = program.operators[2:]
        used = next(i for i, op in enumerate(rest) if probe[1].outputs[0] in op.inputs)
        if not any(
            op.target in COLLECTIVES and op.args["axes"] == probe[1].args["axes"]
            for op in rest[:used]
        ):
            return None
        return attrs.evolve(program, operators=(*rest[:used], *probe, *rest[used:]))

    return change_on_one_rank(probed, random.randrange(plan.mesh.size), change)


# sums --------------------------------------------------------------------------------------


def products_with_bias(
    plan: Plan, program: Program
) -> Iterator[tuple[Operator, Operator, Operator]]:
    """Yield products without bias, the operator that adds the bias, and the model's operator."""
    for product in program.operators:
        if not product.name.endswith("~bare"):
            continue
        call, _, own = product.origin.rpartition("/")
        block = next(c.block for c in plan.graph.calls if c.name == call)
        model = next(op for op in plan.graph.blocks[block].operators if op.name == own)
        adds = [
            op
            for op in program.operators
            if op.origin == product.origin and op.target == "aten.add.Tensor"
        ]
        if adds:
            yield product, adds[0], model


@fault(communication=True)
def bias_on_every_rank(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        found = list(products_with_bias(plan, program))
        if not found:
            return None
        product, added, model = random.choice(found)
        bias = added.args["other"]
        if model.target == "aten.linear.default":
            new = attrs.evolve(product, target=model.target, args={**product.args, "bias": bias})
        elif model.target == "aten.addmm.default":
            args = {
                "self": bias, "mat1": product.args["self"], "mat2": product.args["mat2"],
                "beta": 1, "alpha": 1,
            }  # fmt: skip
            new = attrs.evolve(product, target=model.target, args=args)
        else:
            return None
        program = redirect_uses(program, added.outputs[0], added.inputs[0], after=added)
        program = replace_operator(program, added)
        old = next(op for op in program.operators if op.name == product.name)
        return replace_operator(program, old, new)

    return change_one_program(plan, random, change)


@fault(communication=True)
def added_before_the_reduction(plan: Plan, random: Random) -> Plan | None:
    """A complete value is added to a partial sum on every device before the sum is reduced."""

    def change(program: Program) -> Program | None:
        made = {name: op for op in program.operators for name in op.outputs}
        found = [
            op
            for op in program.operators
            if op.target == "aten.add.Tensor"
            and op.inputs
            and made.get(op.inputs[0]) is not None
            and made[op.inputs[0]].target == "parframe.all_reduce"
            and len(op.inputs) == 2
            and program.tensors[op.outputs[0]].shape == program.tensors[op.inputs[0]].shape
        ]
        if not found:
            return None
        added = random.choice(found)
        reduced = made[added.inputs[0]]
        uses = [op for op in program.operators if reduced.outputs[0] in op.inputs]
        if len(uses) > 1:
            return None
        sum_name, out = reduced.outputs[0], added.outputs[0]
        first = attrs.evolve(replace_args(added, self=reduced.args["input"]), outputs=(sum_name,))
        second = attrs.evolve(replace_args(reduced, input=Ref(sum_name)), outputs=(out,))
        program = replace_operator(program, reduced)
        return replace_operator(program, added, first, second)

    return change_one_program(plan, random, change)


@fault(communication=True)
def partial_at_an_output(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        made = {name: op for op in program.operators for name in op.outputs}
        found = [
            part
            for part in program.outputs
            if part.name in made and made[part.name].target == "parframe.all_reduce"
        ]
        if not found:
            return None
        part = random.choice(found)
        operator = made[part.name]
        new = attrs.evolve(part, name=operator.inputs[0])
        program = replace_part(program, "outputs", part, new)
        return replace_operator(program, operator) if random.random() < 0.5 else program

    return change_one_program(plan, random, change)


@fault()
def residual_dropped(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_sum(random, program)
        if operator is None:
            return None
        kept = random.choice(operator.inputs)
        if program.tensors[kept].shape != program.tensors[operator.outputs[0]].shape:
            return None
        program = redirect_uses(program, operator.outputs[0], kept, after=operator)
        return replace_operator(program, operator)

    return change_one_program(plan, random, change)


@fault()
def residual_added_twice(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_sum(random, program)
        if operator is None:
            return None
        twice = f"{operator.outputs[0]}_twice"
        tensor = attrs.evolve(program.tensors[operator.outputs[0]], name=twice)
        program = redirect_uses(program, operator.outputs[0], twice, after=operator)
        again = attrs.evolve(
            replace_args(operator, self=Ref(operator.outputs[0])), name=twice, outputs=(twice,)
        )
        program = replace_operator(program, operator, operator, again)
        return attrs.evolve(program, tensors={**program.tensors, twice: tensor})

    return change_one_program(plan, random, change)


def choose_sum(random: Random, program: Program) -> Operator | None:
    return choose_operator(
        random, program, "aten.add.Tensor", also=lambda op: len(op.inputs) == 2
        and program.tensors[op.outputs[0]].dtype.startswith("float"),
    )  # fmt: skip


# shares of tensors -------------------------------------------------------------------------


@fault()
def weight_off_by_one(plan: Plan, random: Random) -> Plan | None:
    rank = random.randrange(plan.mesh.size)

    def change(program: Program) -> Program | None:
        parts = split_parts(program, program.parameters)
        if not parts:
            return None
        part = random.choice(parts)
        here = bind_region(part.region, plan.devices[rank])
        at = split_axis(here)
        if at is None:
            return None
        (span,) = here[at]
        assert isinstance(span, Span)
        if span.start == span.stop:
            return None
        new = attrs.evolve(part, region=move_region(part.region, 1 if span.start == 0 else -1))
        return replace_part(program, "parameters", part, new)

    return change_on_one_rank(plan, rank, change)


@fault()
def weight_overlaps(plan: Plan, random: Random) -> Plan | None:
    """A weight has one element too many along the split dim, in its region and its shape."""

    def change(program: Program) -> Program | None:
        parts = split_parts(program, program.parameters)
        if not parts:
            return None
        part = random.choice(parts)
        at = split_axis(part.region)
        assert at is not None
        new = attrs.evolve(part, region=move_region(part.region, 0, grow=1))
        shape = list(program.tensors[part.name].shape)
        shape[at] = simplify(shape[at] + 1)
        program = replace_tensor(program, part.name, shape=tuple(shape))
        return replace_part(program, "parameters", part, new)

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault()
def weight_of_another_layer(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        part = random.choice(program.parameters)
        own = plan.graph.parameters[part.whole]
        others = [
            name
            for name, other in plan.graph.parameters.items()
            if name != part.whole and other.shape == own.shape and other.dtype == own.dtype
            and own.data is None
        ]  # fmt: skip
        if not others:
            return None
        new = attrs.evolve(part, whole=random.choice(others))
        return replace_part(program, "parameters", part, new)

    return change_one_program(plan, random, change)


@fault()
def weight_transposed(plan: Plan, random: Random) -> Plan | None:
    """A square weight is split along its other dim."""

    def change(program: Program) -> Program | None:
        parts = [
            part
            for part in split_parts(program, program.parameters)
            if len(part.region) == 2 and len(set(plan.graph.parameters[part.whole].shape)) == 1
        ]
        if not parts:
            return None
        part = random.choice(parts)
        new = attrs.evolve(part, region=part.region[::-1])
        shape = program.tensors[part.name].shape[::-1]
        program = replace_tensor(program, part.name, shape=shape)
        return replace_part(program, "parameters", part, new)

    return change_one_program(plan, random, change)


@fault()
def wrong_binding(plan: Plan, random: Random) -> Plan | None:
    rank = random.randrange(plan.mesh.size)
    device = plan.devices[rank]
    program = plan.programs[device.program]
    used = {
        part.name: n.name
        for part in split_parts(program, (*program.parameters, *program.inputs))
        for axis in part.region
        for span in axis
        if isinstance(span, Span)
        for n in getattr(span.start, "free_symbols", ())
    }
    names = sorted(set(used.values()) & set(device.bindings))
    if not names:
        return None
    name = random.choice(names)
    values = {d.bindings[name] for d in plan.devices if name in d.bindings}
    others = sorted(values - {device.bindings[name]}, key=str)
    if not others:
        return None
    new = attrs.evolve(device, bindings={**device.bindings, name: random.choice(others)})
    return attrs.evolve(plan, devices=tuple(new if d is device else d for d in plan.devices))


@fault()
def remainder_ignored(plan: Plan, random: Random) -> Plan | None:
    """Every device has the rounded-down share of the batch, and no device has the remainder."""
    if not any("batch_here" in device.bindings for device in plan.devices):
        return None
    degree = plan.mesh.degree("dp")
    each = floordiv(symbol("batch"), degree)
    devices = tuple(
        attrs.evolve(
            d,
            bindings={
                **d.bindings,
                "batch_here": each,
                "batch_start": simplify(each * plan.mesh.index(d.rank, ("dp",))),
            },
        )
        for d in plan.devices
    )
    return attrs.evolve(plan, devices=devices)


@fault()
def program_of_another_rank(plan: Plan, random: Random) -> Plan | None:
    """Two devices of one stage swap programs but keep their bindings."""
    pairs = [
        (a, b)
        for a in plan.devices
        for b in plan.devices
        if a.rank < b.rank
        and a.program != b.program
        and plan.programs[a.program].stage == plan.programs[b.program].stage
    ]
    if not pairs:
        return None
    a, b = random.choice(pairs)
    programs = {a.rank: b.program, b.rank: a.program}
    devices = tuple(attrs.evolve(d, program=programs.get(d.rank, d.program)) for d in plan.devices)
    return attrs.evolve(plan, devices=devices)


@fault()
def input_part_wrong(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        parts = split_parts(program, program.inputs)
        if not parts:
            return None
        part = random.choice(parts)
        new = attrs.evolve(part, region=move_region(part.region, random.choice([-1, 1])))
        return replace_part(program, "inputs", part, new)

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault()
def output_part_wrong(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        if not program.outputs:
            return None
        part = random.choice(program.outputs)
        at = split_axis(part.region)
        if at is not None:
            region = move_region(part.region, random.choice([-1, 1]))
        else:
            places = [
                i
                for i, axis in enumerate(part.region)
                if len(axis) == 1 and isinstance(axis[0], Span) and isinstance(axis[0].size, int)
            ]
            if not places:
                return None
            place = random.choice(places)
            (span,) = part.region[place]
            assert isinstance(span, Span)
            new = (Span(span.size, 0, simplify(span.size - 1)),)
            region = (*part.region[:place], new, *part.region[place + 1 :])
        return replace_part(program, "outputs", part, attrs.evolve(part, region=region))

    return change_one_program(plan, random, change)


@fault()
def missing_output(plan: Plan, random: Random) -> Plan | None:
    programs = {
        name: attrs.evolve(program, outputs=program.outputs[1:])
        for name, program in plan.programs.items()
    }
    return attrs.evolve(plan, programs=programs) if programs != dict(plan.programs) else None


# operators ---------------------------------------------------------------------------------


def choose_other_value(random: Random, program: Program, name: str, before: Operator) -> str | None:
    """Choose another value of the same shape and dtype that an earlier operator computes."""
    made = {value: op for op in program.operators for value in op.outputs}
    own = made.get(name)
    found = []
    for operator in program.operators:
        if operator is before:
            break
        if operator.target in MAKING and (own is None or operator.origin != own.origin):
            found += [
                value
                for value in operator.outputs
                if value != name
                and program.tensors[value].shape == program.tensors[name].shape
                and program.tensors[value].dtype == program.tensors[name].dtype
            ]
    usual = own is None or own.target in (*MAKING, "aten.add.Tensor")
    return random.choice(found) if found and usual else None


@fault()
def another_operand(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = random.choice(program.operators)
        if communicates(operator) or not operator.inputs:
            return None
        name = random.choice(operator.inputs)
        other = choose_other_value(random, program, name, operator)
        if other is None:
            return None
        args = {slot: rename_arg(arg, {name: other}) for slot, arg in operator.args.items()}
        return replace_operator(program, operator, attrs.evolve(operator, args=args))

    return change_one_program(plan, random, change)


@fault()
def dropped_operator(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *ACTIVE)
        if operator is None:
            return None
        program = redirect_uses(program, operator.outputs[0], operator.inputs[0], after=operator)
        return replace_operator(program, operator)

    return change_one_program(plan, random, change)


@fault()
def another_operator(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *ACTIVE)
        if operator is None or operator.target == "aten.pow.Tensor_Scalar":
            return None
        other = "aten.sigmoid.default"
        args = {"self": operator.args["self"]}
        return replace_operator(program, operator, attrs.evolve(operator, target=other, args=args))

    return change_one_program(plan, random, change)


@fault()
def swapped_operands(plan: Plan, random: Random) -> Plan | None:
    """Two operands of a difference, quotient, concatenation or attention are swapped."""

    def change(program: Program) -> Program | None:
        operator = choose_operator(
            random, program, "aten.sub.Tensor", "aten.div.Tensor", "aten.cat.default",
            "parframe.attention.default", also=lambda op: len(set(op.inputs)) > 1,
        )  # fmt: skip
        if operator is None:
            return None
        if operator.target == "aten.cat.default":
            tensors: Any = operator.args["tensors"]
            new = replace_args(operator, tensors=tensors[::-1])
            shapes = {program.tensors[ref.name].shape for ref in tensors}
            if len(set(tensors)) == 1 or len(shapes) > 1:
                return None
        elif operator.target == "parframe.attention.default":
            new = replace_args(operator, key=operator.args["value"], value=operator.args["key"])
        else:
            one, two = operator.args["self"], operator.args["other"]
            new = replace_args(operator, self=two, other=one)
        return replace_operator(program, operator, new)

    return change_one_program(plan, random, change)


@fault()
def argument_changed(plan: Plan, random: Random) -> Plan | None:
    """A number among the arguments (a scale, an epsilon, an exponent) changes."""

    def change(program: Program) -> Program | None:
        found = [
            (op, slot)
            for op in program.operators
            if not communicates(op)
            for slot, arg in op.args.items()
            if isinstance(arg, float) and arg not in (0.0,)
        ]
        if not found:
            return None
        operator, slot = random.choice(found)
        value: Any = operator.args[slot]
        return replace_operator(
            program, operator, replace_args(operator, **{slot: value * 1.5 + 0.01})
        )

    return change_one_program(plan, random, change)


@fault()
def wrong_axis(plan: Plan, random: Random) -> Plan | None:
    """A transposition swaps other dims."""

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "aten.transpose.int")
        if operator is None:
            return None
        rank = len(program.tensors[operator.inputs[0]].shape)
        dims = {int(operator.args["dim0"]) % rank, int(operator.args["dim1"]) % rank}  # type: ignore[arg-type]
        others = [(i, j) for i in range(rank) for j in range(i) if {i, j} != dims]
        if not others:
            return None
        i, j = random.choice(others)
        return replace_operator(program, operator, replace_args(operator, dim0=i, dim1=j))

    return change_one_program(plan, random, change)


@fault()
def wrong_local_size(plan: Plan, random: Random) -> Plan | None:
    """Two sizes of a view change, and their product stays."""

    def change(program: Program) -> Program | None:
        found = [
            (op, slot, [i for i, n in enumerate(arg) if isinstance(n, int) and n > 1])
            for op in program.operators
            if op.target in ("aten.view.default", "aten.reshape.default")
            for slot, arg in op.args.items()
            if isinstance(arg, tuple)
        ]
        found = [entry for entry in found if len(entry[2]) > 1]
        if not found:
            return None
        operator, slot, places = random.choice(found)
        size: Any = list(operator.args[slot])  # type: ignore[arg-type]
        i, j = places[-2:]
        if size[i] % 2 == 0:
            size[i], size[j] = size[i] // 2, size[j] * 2
        else:
            size[i], size[j] = size[j], size[i]
            if size[i] == size[j]:
                return None
        return replace_operator(program, operator, replace_args(operator, **{slot: tuple(size)}))

    return change_one_program(plan, random, change)


@fault()
def wrong_slice(plan: Plan, random: Random) -> Plan | None:
    """A slice takes another range of the same length."""

    def change(program: Program) -> Program | None:
        found = [
            op
            for op in program.operators
            if op.target == "aten.slice.Tensor"
            and isinstance(op.args["start"], int)
            and isinstance(op.args["end"], int)
            and op.args["step"] == 1
            and op.args["end"] < 2**31
        ]
        if not found:
            return None
        operator = random.choice(found)
        start: Any = operator.args["start"]
        end: Any = operator.args["end"]
        by = 1 if start == 0 else -1
        new = replace_args(operator, start=start + by, end=end + by)
        size = program.tensors[operator.inputs[0]].shape[int(operator.args["dim"])]  # type: ignore[arg-type]
        if start == 0 and size == end:
            return None
        return replace_operator(program, operator, new)

    return change_one_program(plan, random, change)


@fault()
def wrong_start(plan: Plan, random: Random) -> Plan | None:
    """An embedding looks up its rows from another offset."""

    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, "parframe.embedding")
        if operator is None:
            return None
        start: Any = operator.args["start"]
        return replace_operator(
            program, operator, replace_args(operator, start=simplify(start + 1))
        )

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


@fault()
def defined_twice(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operator = choose_operator(random, program, *MAKING)
        if operator is None:
            return None
        again = attrs.evolve(operator, name=f"{operator.name}_again")
        return replace_operator(program, operator, operator, again)

    return change_one_program(plan, random, change)


@fault()
def used_before_defined(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        operators = list(program.operators)
        at = random.randrange(1, len(operators))
        if not set(operators[at - 1].outputs) & set(operators[at].inputs):
            return None
        operators[at - 1], operators[at] = operators[at], operators[at - 1]
        return attrs.evolve(program, operators=tuple(operators))

    return change_one_program(plan, random, change)


@fault()
def state_of_the_wrong_value(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        if len(program.states) < 2:
            return None
        at = random.randrange(len(program.states) - 1)
        states = list(program.states)
        one, two = states[at], states[at + 1]
        states[at] = attrs.evolve(one, value=two.value)
        if random.random() < 0.5:
            states[at + 1] = attrs.evolve(two, value=one.value)
        return attrs.evolve(program, states=tuple(states))

    return change_one_program(plan, random, change)


@fault()
def missing_state(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        if not program.states:
            return None
        at = random.randrange(len(program.states))
        states = (*program.states[:at], *program.states[at + 1 :])
        return attrs.evolve(program, states=states)

    return change_one_program(plan, random, change)


@fault()
def wrong_recorded_shape(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        name = random.choice(sorted(program.tensors))
        shape = program.tensors[name].shape
        used = {value for op in program.operators for value in (*op.inputs, *op.outputs)}
        if not shape or name not in used:
            return None
        at = random.randrange(len(shape))
        new = (*shape[:at], simplify(shape[at] + 1), *shape[at + 1 :])
        return replace_tensor(program, name, shape=new)

    return change_one_program(plan, random, change)


@fault(communication=True)
def wrong_dtype_on_the_wire(plan: Plan, random: Random) -> Plan | None:
    def change(program: Program) -> Program | None:
        targets = (*COMMUNICATION_OPERATORS, *DISTRIBUTED_FORMS)
        operator = choose_operator(random, program, *targets, also=lambda op: bool(op.outputs))
        if operator is None:
            return None
        return replace_tensor(program, operator.outputs[0], dtype="float16")

    return change_on_one_rank(plan, random.randrange(plan.mesh.size), change)


def plant_faults(
    kind: str, plans: Mapping[str, Plan], count: int, seed: int
) -> Iterator[tuple[str, Plan]]:
    """Yield a number of faults of a kind, each planted in one of the plans, in turn."""
    random = Random(f"{kind} {seed}")
    names = sorted(plans)
    random.shuffle(names)
    found = 0
    for attempt in range(200 * count):
        name = names[attempt % len(names)]
        planted = FAULTS[kind](plans[name], random)
        if planted is not None:
            found += 1
            yield f"{kind} in {name}, attempt {attempt}", planted
        if found == count:
            return


def two_products(width: int = 6, inner: int = 10) -> OperatorGraph:
    """``down(relu(up(x)))``: under tensor parallelism its output is a reduced sum."""
    batch = symbol("batch")
    shapes = {"x": (batch, width), "up.weight": (inner, width), "down.weight": (width, inner)}
    tensors = {name: Tensor(name, shape, "float32") for name, shape in shapes.items()}
    made = {"up": (batch, inner), "relu": (batch, inner), "down": (batch, width)}
    tensors.update((name, Tensor(name, shape, "float32")) for name, shape in made.items())
    operators = (
        Operator("up", "aten.linear.default", {"input": Ref("x"), "weight": Ref("up.weight")},
                 ("up",), "up"),
        Operator("relu", "aten.relu.default", {"self": Ref("up")}, ("relu",)),
        Operator("down", "aten.linear.default",
                 {"input": Ref("relu"), "weight": Ref("down.weight")}, ("down",), "down"),
    )  # fmt: skip
    weights = ("up.weight", "down.weight")
    block = Block("main", ("x",), weights, operators, ("down",), tensors)
    return OperatorGraph(
        blocks={"main": block},
        calls=(Call("", "main", ("x",), weights, ("down",)),),
        inputs={"x": Input("x", shapes["x"], "float32", ("batch", ""))},
        outputs="down",
        parameters={name: Parameter(name, shapes[name], "float32") for name in weights},
    )


def product_plans() -> dict[str, Plan]:
    """Return plans of ``two_products`` with only the inner dimension, or the batch, split."""
    graph = two_products()
    inner, batch = Split("ffn", ("tp",)), Split("batch", ("dp",))
    return {
        f"products, {mesh}": partition_placing(graph, Placing(mesh, splits))
        for mesh, splits in (
            (Mesh((("tp", 2),)), (inner,)),
            (Mesh((("tp", 3),)), (inner,)),
            (Mesh((("tp", 2), ("dp", 3))), (inner, batch)),
        )
    }
