"""Common parts of rules that are functions: dims, their numbers, signatures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from parframe.graph import Arg, Operator
from parframe.rules.notation import solve
from parframe.rules.rule import Local, Site
from parframe.rules.signature import Pattern, Signature, labels_of
from parframe.sizes import Size

Dims: TypeAlias = tuple[Pattern, ...]

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
HALVES = frozenset({"float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"})


def label_dims(prefix: str, rank: int) -> Dims:
    """Return one label for each dim: ``a0 a1 a2``."""
    return tuple((f"{prefix}{i}",) for i in range(rank))


def dim_index(dim: Any, rank: int) -> int:
    """Return the number of a dim counted from the front."""
    return int(dim) + max(rank, 1) if dim < 0 else int(dim)


def dim_indices(dim: Any, rank: int) -> frozenset[int]:
    """Return the numbers of dims, all of them for None or an empty list."""
    if dim is None or dim == ():
        return frozenset(range(rank))
    chosen = dim if isinstance(dim, tuple) else (dim,)
    return frozenset(dim_index(one, rank) for one in chosen)


def signature(
    site: Site,
    inputs: Iterable[Dims],
    outputs: Iterable[Dims],
    *,
    sizes: Mapping[str, Size] | None = None,
    whole: Iterable[str] = (),
    free: Iterable[str] = (),
    dropped: Iterable[str] = (),
    reduction: str = "sum",
    linear: str = "",
    moves: bool = False,
    addend: str = "",
) -> Signature | None:
    """Return the signature of a call; None where the shapes contradict it.

    ``linear`` names arguments as in ``Rule``; a group counts only where all of it is tensors.
    """
    ins, outs = tuple(inputs), tuple(outputs)
    if [len(one) for one in (*ins, *outs)] != [len(t.shape) for t in (*site.inputs, *site.outputs)]:
        return None
    solved = solve((*ins, *outs), (*site.inputs, *site.outputs), sizes)
    if solved is None:
        return None
    used = labels_of((*ins, *outs))
    slots = site.operator.slots
    return Signature(
        inputs=ins,
        outputs=outs,
        sizes={label: size for label, size in solved.items() if label in used},
        whole=frozenset(whole) & used,
        free=frozenset(free) & used,
        dropped=frozenset(dropped) & used,
        reduction=reduction,
        linear=joint(linear, slots),
        moves=moves,
        addend=slots.index(addend) if addend in slots else None,
    )


def joint(linear: str, slots: tuple[str, ...]) -> tuple[frozenset[int], ...]:
    """Return the groups of ``"self other | weight"`` of which every argument is a tensor."""
    found = []
    for group in linear.split("|"):
        names = group.split()
        if names and all(name in slots for name in names):
            found.append(frozenset(i for i, slot in enumerate(slots) if slot in names))
    return tuple(found)


def passing(
    site: Site, whole: Iterable[int], linear: str = "", moves: bool = False
) -> Signature | None:
    """Return the signature of one input whose dims pass to every output, those in ``whole`` whole.

    A whole dim may change its size.
    """
    kept = frozenset(whole)
    rank = len(site.inputs[0].shape)
    taken = label_dims("a", rank)
    given = []
    marks = [f"a{i}" for i in kept]
    for number, output in enumerate(site.outputs):
        if len(output.shape) != rank:
            return None
        own = list(taken)
        for i in kept:
            if output.shape[i] != site.inputs[0].shape[i]:
                own[i] = (f"b{number}_{i}",)
        given.append(tuple(own))
    return signature(site, [taken], given, whole=marks, linear=linear, moves=moves)


def broadcast(shape: tuple[Size, ...], onto: tuple[Size, ...], prefix: str = "a") -> Dims | None:
    """Return the dims of a tensor broadcast onto dims ``a0 a1 ...``; ``()`` for size one."""
    extra = len(onto) - len(shape)
    if extra < 0:
        return None
    result: list[Pattern] = []
    for i, size in enumerate(shape):
        if size == 1:
            result.append(())
        elif size == onto[i + extra]:
            result.append((f"{prefix}{i + extra}",))
        else:
            return None
    return tuple(result)


def always(operator: Operator) -> bool:
    """Return True, for rules of operators that always return their input unchanged."""
    return True


def unit_free(shape: tuple[Size, ...], prefix: str = "a") -> Dims:
    """Return dims ``a0 a1 ...``, without a label where the size is one."""
    return tuple(() if size == 1 else (f"{prefix}{i}",) for i, size in enumerate(shape))


def again(local: Local, **changes: Arg) -> None:
    """Write the operator as it is, with some arguments changed (None leaves one out)."""
    operator = local.site.operator
    merged = {**operator.args, **changes}
    args = {key: arg for key, arg in merged.items() if key not in changes or arg is not None}
    local.emit(operator.target, args, operator.outputs[0])


def guarded(local: Local, labels: Iterable[str], **changes: Arg) -> None:
    """Write the operator, guarded where the device may have no elements of one of these labels.

    For operators that PyTorch does not run on empty tensors.
    """
    sizes = [local.size(label) for label in labels if local.split(label)]
    if all(isinstance(size, int) and size > 0 for size in sizes):
        again(local, **changes)
        return
    operator = local.site.operator
    (output,) = operator.outputs
    args = {**operator.args, **changes, "target": operator.target, "shape": local.shape(output)}
    local.emit("parframe.guarded", args, output)
