"""Memory of one device: the sizes it is counted for, weights, caches and activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import attrs

from parframe.checking.findings import DeviceMemory
from parframe.checking.samples import evaluate_size, graph_symbols, symbol_names
from parframe.errors import ParframeError
from parframe.graph import BYTES, Tensor
from parframe.plan import Plan, Program
from parframe.rules.kinds import View
from parframe.rules.table import kind_of
from parframe.sizes import Size

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


@attrs.frozen
class MemorySizes:
    """Sizes and dtype that memory is counted for.

    - ``values``: the value of every symbol of the model.
    """

    values: Mapping[str, int]
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in sorted(self.values.items()))
        return f"memory is counted for {sizes or 'the given shapes'}, in {self.dtype}"


def memory_sizes(
    plan: Plan, dtype: str | None = None, batch: int | None = None, sequence: int | None = None
) -> MemorySizes:
    """Return the sizes that memory is counted for.

    By default, one row for each share of the batch, 1024 positions, and bfloat16.

    Raise ``ParframeError`` of kind ``usage``, for an unknown dtype or a size below one.
    """
    if dtype is not None and dtype not in BYTES:
        raise ParframeError("usage", f"dtype {dtype!r}", "unknown dtype", "use bfloat16 or float32")
    for name, size in (("batch", batch), ("sequence", sequence)):
        if size is not None and size < 1:
            raise ParframeError("usage", f"{name} {size}", "too small", "use at least 1")
    axes = plan.placing.axes("batch")
    rows = math.lcm(*(sum(mesh.ratio(axes)) for mesh in plan.mesh.submeshes))
    values = dict.fromkeys(graph_symbols(plan.graph), 1)
    if "batch" in values:
        values["batch"] = batch or rows
    if "sequence" in values:
        values["sequence"] = sequence or 1024
    return MemorySizes(values, dtype or "bfloat16")


def symbol_values(plan: Plan, rank: int, sizes: MemorySizes) -> dict[str, int]:
    """Return the value of every symbol on a device."""
    values = dict(sizes.values)
    for name, size in plan.devices[rank].bindings.items():
        values[name] = evaluate_size(size, sizes.values)
    return values


def tensor_bytes(
    tensor: Tensor, values: Mapping[str, int], dtype: str, known: dict[Size, int]
) -> int:
    """Return the bytes of a tensor; floating-point ones have the dtype ``dtype``.

    ``known`` is a cache of sizes.
    """
    count = 1
    for size in tensor.shape:
        if not isinstance(size, int) and size not in known:
            known[size] = evaluate_size(size, values)
        count *= size if isinstance(size, int) else known[size]
    return int(count * element_bytes(tensor, dtype))


def element_bytes(tensor: Tensor, dtype: str) -> float:
    """Return the bytes of one element; floating-point ones have the dtype ``dtype``."""
    return BYTES[dtype] if tensor.dtype in _FLOATS else BYTES[tensor.dtype]


def device_memory(plan: Plan, rank: int, sizes: MemorySizes | None = None) -> DeviceMemory:
    """Return the bytes that a device needs for weights, caches, and activations at their peak.

    A view needs no memory of its own. Inputs are alive until their last use, outputs until the end.
    """
    sizes = sizes or memory_sizes(plan)
    return _ProgramMemory(plan.program(rank)).count(symbol_values(plan, rank, sizes), sizes.dtype)


def all_device_memory(plan: Plan, sizes: MemorySizes) -> dict[int, DeviceMemory]:
    """Return the bytes that every device needs; equal devices are counted once."""
    program_memories = {name: _ProgramMemory(program) for name, program in plan.programs.items()}
    known: dict[object, DeviceMemory] = {}
    found = {}
    for device in plan.devices:
        program_memory = program_memories[device.program]
        values = symbol_values(plan, device.rank, sizes)
        key = (device.program, tuple(values.get(name) for name in program_memory.symbols))
        if key not in known:
            known[key] = program_memory.count(values, sizes.dtype)
        found[device.rank] = known[key]
    return found


class _ProgramMemory:
    """Tensors of one program, and how long each is alive."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.weights = [program.tensors[part.name] for part in program.parameters]
        self.caches = [program.tensors[state.value] for state in program.states]
        self.owner, self.last_use = _storage_lifetimes(program)
        tensors = (*self.weights, *program.tensors.values())
        self.symbols = tuple(
            sorted({name for t in tensors for size in t.shape for name in symbol_names(size)})
        )

    def count(self, values: Mapping[str, int], dtype: str) -> DeviceMemory:
        """Return the bytes for these values of the symbols."""
        sizes: dict[Size, int] = {}

        def total(tensors: Iterable[Tensor]) -> int:
            return sum(tensor_bytes(tensor, values, dtype, sizes) for tensor in tensors)

        tensors = self.program.tensors
        freed_after: dict[int, list[str]] = {}
        for name, when in self.last_use.items():
            freed_after.setdefault(when, []).append(name)
        alive = total(tensors[part.name] for part in self.program.inputs)
        peak = alive
        for position, operator in enumerate(self.program.operators):
            allocated = [name for name in operator.outputs if self.owner.get(name) == name]
            alive += total(tensors[name] for name in allocated)
            peak = max(peak, alive)
            alive -= total(tensors[name] for name in freed_after.get(position, ()))
        return DeviceMemory(total(self.weights), total(self.caches), peak)


def _storage_lifetimes(program: Program) -> tuple[dict[str, str], dict[str, int]]:
    """Return the owner of each value's storage, and the last operator that uses each storage."""
    owner = {part.name: part.name for part in program.inputs}
    weights = {part.name for part in program.parameters}
    last_use: dict[str, int] = {}
    for position, operator in enumerate(program.operators):
        for name in operator.inputs:
            if name in owner:
                last_use[owner[name]] = position
        kind = kind_of(operator)
        shares = operator.inputs and isinstance(kind, View) and not kind.copies
        for name in operator.outputs:
            source = operator.inputs[0] if shares else name
            if source in weights:
                continue
            owner[name] = owner.get(source, name)
            last_use.setdefault(owner[name], position)
    for part in program.outputs:
        last_use.pop(owner.get(part.name, ""), None)
    return owner, last_use
