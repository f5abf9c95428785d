"""Memory of one device: weights, caches and the most that activations need at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import attrs

from parframe.checking.findings import DeviceMemory, Traffic
from parframe.checking.samples import evaluate_size, graph_symbols, symbol_names
from parframe.errors import ParframeError
from parframe.graph import BYTES, Operator, Tensor
from parframe.mesh import Mesh
from parframe.plan import COMMUNICATION, Plan, Program, group_axes
from parframe.rules.table import EXCHANGES
from parframe.sizes import Size

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})

_VIEWS = """
view.default reshape.default permute.default transpose.int t.default unsqueeze.default
squeeze.default squeeze.dim squeeze.dims expand.default slice.Tensor select.int alias.default
detach.default flatten.using_ints unflatten.int unbind.int split.Tensor split.sizes
split_with_sizes.default chunk.default
"""
"""Operators that share their input's storage."""


@attrs.frozen
class MemorySizes:
    """The sizes and the dtype that memory is counted for.

    ``dtype`` is what floating-point tensors are held in.
    """

    values: Mapping[str, int]
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in sorted(self.values.items()))
        return f"memory is counted for {sizes or 'the shapes given'}, in {self.dtype}"


def memory_sizes(
    plan: Plan, dtype: str | None = None, batch: int | None = None, sequence: int | None = None
) -> MemorySizes:
    """What memory is counted for: a row for each share of the batch, 1024 positions, bfloat16.

    Raises
    ------
    ParframeError
        Of kind ``usage``, for a dtype that is not known or a size below one.
    """
    if dtype is not None and dtype not in BYTES:
        raise ParframeError("usage", f"dtype {dtype!r}", "not known", "use bfloat16 or float32")
    for name, size in (("batch", batch), ("sequence", sequence)):
        if size is not None and size < 1:
            raise ParframeError("usage", f"{name} {size}", "not a size", "give at least 1")
    axes = plan.placing.axes("batch")
    rows = math.lcm(*(sum(mesh.ratio(axes)) for mesh in plan.mesh.submeshes))
    values = dict.fromkeys(graph_symbols(plan.graph), 1)
    if "batch" in values:
        values["batch"] = batch or rows
    if "sequence" in values:
        values["sequence"] = sequence or 1024
    return MemorySizes(values, dtype or "bfloat16")


def device_memory(plan: Plan, rank: int, sizes: MemorySizes | None = None) -> DeviceMemory:
    """The bytes that a device needs.

    Parameters
    ----------
    plan
        The plan.
    rank
        A rank of its mesh.
    sizes
        What is counted for; see ``memory_sizes``.

    Returns
    -------
    Memory
        Weights, caches, and activations where they are the most. A view needs nothing of its
        own, and what a device is given or returns stays.
    """
    sizes = sizes or memory_sizes(plan)
    return _Counted(plan.program(rank)).device_memory(bound_values(plan, rank, sizes), sizes.dtype)


def all_device_memory(plan: Plan, sizes: MemorySizes) -> dict[int, DeviceMemory]:
    """The bytes that every device needs; devices alike are counted once."""
    counted = {name: _Counted(program) for name, program in plan.programs.items()}
    known: dict[object, DeviceMemory] = {}
    found = {}
    for device in plan.devices:
        own = counted[device.program]
        values = bound_values(plan, device.rank, sizes)
        key = (device.program, tuple(values.get(name) for name in own.symbols))
        if key not in known:
            known[key] = own.device_memory(values, sizes.dtype)
        found[device.rank] = known[key]
    return found


def bound_values(plan: Plan, rank: int, sizes: MemorySizes) -> dict[str, int]:
    """The value of every symbol on a device."""
    values = dict(sizes.values)
    for name, size in plan.devices[rank].bindings.items():
        values[name] = evaluate_size(size, sizes.values)
    return values


class _Counted:
    """One program's tensors and how long each is alive."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.weights = [program.tensors[part.name] for part in program.parameters]
        self.caches = [program.tensors[state.value] for state in program.states]
        self.owner, self.last = _lifetimes(program)
        tensors = (*self.weights, *program.tensors.values())
        self.symbols = tuple(
            sorted({name for t in tensors for size in t.shape for name in symbol_names(size)})
        )

    def device_memory(self, values: Mapping[str, int], dtype: str) -> DeviceMemory:
        """The bytes for these values of the symbols."""
        sizes: dict[Size, int] = {}

        def total(tensors: Iterable[Tensor]) -> int:
            return sum(bytes_of(tensor, values, dtype, sizes) for tensor in tensors)

        tensors = self.program.tensors
        ending: dict[int, list[str]] = {}
        for name, when in self.last.items():
            ending.setdefault(when, []).append(name)
        alive = total(tensors[part.name] for part in self.program.inputs)
        peak = alive
        for position, operator in enumerate(self.program.operators):
            own = [name for name in operator.outputs if self.owner.get(name) == name]
            alive += total(tensors[name] for name in own)
            peak = max(peak, alive)
            alive -= total(tensors[name] for name in ending.get(position, ()))
        return DeviceMemory(total(self.weights), total(self.caches), peak)


def _lifetimes(program: Program) -> tuple[dict[str, str], dict[str, int]]:
    """Whose storage each value shares, and the operator after which a storage is free."""
    owner = {part.name: part.name for part in program.inputs}
    weights = {part.name for part in program.parameters}
    last: dict[str, int] = {}
    for position, operator in enumerate(program.operators):
        for name in operator.inputs:
            if name in owner:
                last[owner[name]] = position
        shares = operator.inputs and operator.target.removeprefix("aten.") in _VIEWS.split()
        for name in operator.outputs:
            source = operator.inputs[0] if shares else name
            if source in weights:
                continue
            owner[name] = owner.get(source, name)
            last.setdefault(owner[name], position)
    for part in program.outputs:
        last.pop(owner.get(part.name, ""), None)
    return owner, last


def bytes_of(tensor: Tensor, values: Mapping[str, int], dtype: str, known: dict[Size, int]) -> int:
    """The bytes of a tensor, floating-point ones in ``dtype``."""
    count = 1
    for size in tensor.shape:
        if not isinstance(size, int) and size not in known:
            known[size] = evaluate_size(size, values)
        count *= size if isinstance(size, int) else known[size]
    return int(count * _width(tensor, dtype))


def traffic(plan: Plan, sizes: MemorySizes) -> tuple[Traffic, ...]:
    """The communications of a plan by kind and mesh axes."""
    spoken = {
        name: [op for op in program.operators if op.target in COMMUNICATION]
        for name, program in plan.programs.items()
    }
    known: dict[object, dict[tuple[str, tuple[str, ...]], tuple[int, int]]] = {}
    counts: dict[tuple[str, tuple[str, ...]], int] = {}
    bytes_: dict[tuple[str, tuple[str, ...]], int] = {}
    for device in plan.devices:
        values = bound_values(plan, device.rank, sizes)
        key = (device.program, tuple(sorted(values.items())))
        if key not in known:
            program = plan.programs[device.program]
            known[key] = _spoken(
                spoken[device.program], program, values, sizes.dtype, plan.mesh, device.rank
            )
        for what, (count, size) in known[key].items():
            counts[what] = max(counts.get(what, 0), count)
            bytes_[what] = bytes_.get(what, 0) + size
    return tuple(Traffic(*what, counts[what], bytes_[what]) for what in sorted(counts))


def _spoken(
    operators: Iterable[Operator],
    program: Program,
    values: Mapping[str, int],
    dtype: str,
    mesh: Mesh,
    rank: int,
) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
    found: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    sizes: dict[Size, int] = {}
    for operator in operators:
        what = (operator.target.removeprefix("parframe."), group_axes(operator))
        given = {name: program.tensors[name] for name in operator.inputs}
        if operator.target in EXCHANGES:
            members = mesh.group_size(group_axes(operator), rank)
            size = _exchanged(operator, given, values, dtype, members)
        else:
            size = sum(bytes_of(tensor, values, dtype, sizes) for tensor in given.values())
        count, before = found.get(what, (0, 0))
        found[what] = (count + 1, before + size)
    return found


def _exchanged(
    operator: Operator,
    given: Mapping[str, Tensor],
    values: Mapping[str, int],
    dtype: str,
    members: int,
) -> int:
    """The bytes that a device sends at most in an exchange."""
    own = dict(zip(operator.slots, (given[name] for name in operator.inputs), strict=True))
    shapes = {
        slot: tuple(evaluate_size(size, values) for size in tensor.shape)
        for slot, tensor in own.items()
    }
    travels = operator.args["travels"]
    slots = tuple(map(str, travels)) if isinstance(travels, tuple) else ()
    sent = EXCHANGES[operator.target].sent(shapes, slots, members)
    return int(sum(count * _width(own[slot], dtype) for slot, count in sent.items()))


def _width(tensor: Tensor, dtype: str) -> float:
    return BYTES[dtype] if tensor.dtype in _FLOATS else BYTES[tensor.dtype]
