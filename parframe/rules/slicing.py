"""Rules of operators that slice tensors, or reverse ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import sympy

from parframe.graph import Arg, Operator, Ref
from parframe.rules.building import Dims, again, dim_index, label_dims, passing, signature
from parframe.rules.kinds import View
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Concat, Pattern, Signature
from parframe.sizes import Size, divide, simplify, sum_sizes


def replace(taken: Dims, at: int, pattern: Pattern) -> Dims:
    """Return the dims with another pattern for one of them."""
    return (*taken[:at], pattern, *taken[at + 1 :])


def segments(parts: Sequence[tuple[str, Size]]) -> tuple[Pattern, dict[str, Size]]:
    """Return the dim ``[a | b | ...]``; parts of size zero are left out, and one part is itself."""
    present = {name: size for name, size in parts if size != 0}
    patterns = tuple(() if size == 1 else (name,) for name, size in present.items())
    if len(patterns) == 1:
        return patterns[0], present
    return (Concat(patterns),), present


def _kept(site: Site, at: int, start: Size, length: Size) -> Signature | None:
    """Keep one range of a dim: ``[before | kept | after] -> kept``."""
    size = site.inputs[0].shape[at]
    taken = label_dims("a", len(site.inputs[0].shape))
    parts = [("before", start), ("kept", length), ("after", simplify(size - start - length))]
    pattern, sizes = segments(parts)
    kept: Pattern = () if length == 1 else ("kept",)
    return signature(
        site, [replace(taken, at, pattern)], [replace(taken, at, kept)], sizes=sizes,
        dropped=["before", "after"], moves=True,
    )  # fmt: skip


def _bounds(site: Site) -> tuple[int, Size, Size] | None:
    """Return the dim of a slice with step one, its start and its length, where they are known."""
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    size, length = site.inputs[0].shape[at], site.outputs[0].shape[at]
    if site.arg("step", 1) != 1:
        return None
    if size == length:
        return at, 0, length
    if length == 0:
        return None
    start = site.arg("start", 0)
    if isinstance(start, Ref) or not isinstance(size, int):
        return None
    if isinstance(start, int):
        return at, max(start + size, 0) if start < 0 else start, length
    return (at, start, length) if isinstance(length, int) else None


def _slice(site: Site) -> Signature | None:
    bounds = _bounds(site)
    if bounds is not None:
        return _kept(site, *bounds)
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    return _strided(site, at) or passing(site, [at], moves=True)


def _strided(site: Site, at: int) -> Signature | None:
    """Take every ``step``-th element where the step divides the dim: ``(m step) -> m``."""
    size, length, step = site.inputs[0].shape[at], site.outputs[0].shape[at], site.arg("step", 1)
    start = site.arg("start", 0)
    if not isinstance(start, int) or not isinstance(step, int) or not 0 <= start < step:
        return None
    if step == 1 or divide(size, step) != length:
        return None
    taken = label_dims("a", len(site.inputs[0].shape))
    return signature(
        site, [replace(taken, at, ("m", "step"))], [replace(taken, at, ("m",))],
        sizes={"step": step}, whole=["step"], dropped=["step"], moves=True,
    )  # fmt: skip


def _local_size(local: Local, label: str, size: Any) -> Any:
    """Return the size of a segment on the device; segments of size zero and one have no label."""
    return size if size in (0, 1) else local.size(label)


def _local_range(local: Local) -> tuple[int, Size, Size] | None:
    """Return the dim, start and stop of a slice on the device."""
    bounds = _bounds(local.site)
    if bounds is None:
        return None
    at, start, length = bounds
    begin = _local_size(local, "before", start)
    kept = _local_size(local, "kept", length)
    return at, begin, simplify(begin + kept)


def _local_slice(local: Local) -> None:
    operator = local.site.operator
    (output,) = operator.outputs
    found = _local_range(local)
    if found is not None:
        at, begin, stop = found
        args = {"self": operator.args["self"], "dim": at, "start": begin, "end": stop, "step": 1}
        local.emit("aten.slice.Tensor", args, output)
        return
    rank = len(local.site.inputs[0].shape)
    at = dim_index(local.site.arg("dim", 0), rank)
    if "m" in local.signature.sizes:
        again(local, end=local.shape(local.site.operator.inputs[0])[at])
    else:
        again(local)


def _select(site: Site) -> Signature | None:
    """Select one element of a dim ``[before | 1 | after]``."""
    at, index = _selected(site)
    taken = label_dims("a", len(site.inputs[0].shape))
    given = (*taken[:at], *taken[at + 1 :])
    size = site.inputs[0].shape[at]
    if not isinstance(size, int) or not isinstance(index, int):
        return signature(site, [taken], [given], whole=[f"a{at}"], dropped=[f"a{at}"], moves=True)
    pattern, sizes = segments([("before", index), ("one", 1), ("after", size - index - 1)])
    return signature(
        site, [replace(taken, at, pattern)], [given], sizes=sizes,
        dropped=["before", "after"], moves=True,
    )  # fmt: skip


def _selected(site: Site) -> tuple[int, Any]:
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    index, size = site.arg("index"), site.inputs[0].shape[at]
    if isinstance(index, int) and isinstance(size, int):
        return at, index + size if index < 0 else index
    return at, index


def _local_select(local: Local) -> None:
    at, index = _selected(local.site)
    if isinstance(index, int) and isinstance(local.site.inputs[0].shape[at], int):
        again(local, dim=at, index=_local_size(local, "before", index))
    else:
        again(local)


def _split(site: Site) -> Signature | None:
    """Split a dim into ranges, one for each output."""
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    taken = label_dims("a", len(site.inputs[0].shape))
    lengths = [output.shape[at] for output in site.outputs]
    if sum_sizes(lengths) != site.inputs[0].shape[at] or 0 in lengths:
        return passing(site, [at], moves=True)
    pattern, sizes = segments([(f"s{i}", length) for i, length in enumerate(lengths)])
    given: list[Pattern] = [() if n == 1 else (f"s{i}",) for i, n in enumerate(lengths)]
    return signature(
        site, [replace(taken, at, pattern)], [replace(taken, at, one) for one in given],
        sizes=sizes, moves=True,
    )  # fmt: skip


def _local_split(local: Local) -> None:
    """Write a slice of the device's part for each output."""
    site = local.site
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    begin: Any = 0
    for output in site.operator.outputs:
        stop = simplify(begin + local.shape(output)[at])
        args = {"self": site.operator.args["self"], "dim": at, "start": begin, "end": stop}
        local.emit("aten.slice.Tensor", {**args, "step": 1}, output)
        begin = stop


def _unbind(site: Site) -> Signature | None:
    """Take a dim apart, which is whole."""
    at = dim_index(site.arg("dim", 0), len(site.inputs[0].shape))
    taken = label_dims("a", len(site.inputs[0].shape))
    given = (*taken[:at], *taken[at + 1 :])
    return signature(
        site, [taken], [given] * len(site.outputs), whole=[f"a{at}"], dropped=[f"a{at}"],
        moves=True,
    )  # fmt: skip


def _whole(arg: str) -> Callable[[Site], Signature | None]:
    """Return a rule in which the dims named by an argument are whole and the others pass."""

    def rule(site: Site) -> Signature | None:
        rank = len(site.inputs[0].shape)
        dims = site.arg(arg)
        chosen = dims if isinstance(dims, tuple) else (dims,)
        whole = range(rank) if dims is None or dims == () else chosen
        return passing(site, [dim_index(d, rank) for d in whole], moves=True)

    return rule


_LONGEST = 2**63 - 1
"""The end of a slice that goes on to the end of its dim."""


def starts_at_zero(operator: Operator) -> bool:
    """Return whether a slice or range begins at 0 and has step 1."""
    return operator.args.get("start", 0) == 0 and operator.args.get("step", 1) == 1


def _canonical_slice(site: Site) -> Operator:
    """Return a slice with its start counted from the front and its end within the dim."""
    dim: Any = site.arg("dim", 0)
    start: Any = site.arg("start", 0)
    size = site.inputs[0].shape[dim]
    length = site.outputs[0].shape[dim]
    step: Any = site.arg("step", 1)
    end: Any = site.arg("end", _LONGEST)
    if step == 1 and end == _LONGEST and start != 0:
        start = _as_number(size - length)
    elif isinstance(start, int) and start < 0:
        start = max(size + start, 0) if isinstance(size, int) else size + start
    elif not isinstance(start, int) and start.is_negative:
        start = _as_number(sympy.Max(size + start, 0))
    if step == 1:
        end = _as_number(start + length)
    elif end == _LONGEST:
        end = size
    args: dict[str, Arg] = {
        "self": site.operator.args["self"], "dim": dim, "start": start, "end": end, "step": step,
    }  # fmt: skip
    return attrs.evolve(site.operator, args=args)


def _as_number(size: Any) -> Any:
    return int(size) if not isinstance(size, int) and size.is_Integer else size


_SPLITS = """split.Tensor split.sizes split_with_sizes.default chunk.default
tensor_split.sections tensor_split.indices"""
_SPLIT_COPIES = """split_with_sizes_copy.default unsafe_split.Tensor unsafe_chunk.default
unsafe_split_with_sizes.default"""

RULES = (
    Rule(
        "aten.slice.Tensor",
        _slice,
        local=_local_slice,
        kind=View(),
        identity=starts_at_zero,
        canonical=_canonical_slice,
    ),
    Rule("aten.slice_copy.Tensor", _slice, local=_local_slice),
    Rule("aten.narrow.default", _slice, local=_local_slice, kind=View()),
    Rule("aten.narrow_copy.default", _slice, local=_local_slice),
    Rule("aten.select.int", _select, local=_local_select, kind=View()),
    *(Rule(f"aten.{name}", _split, local=_local_split, kind=View()) for name in _SPLITS.split()),
    *(Rule(f"aten.{name}", _split, local=_local_split) for name in _SPLIT_COPIES.split()),
    Rule("aten.unbind.int", _unbind, kind=View()),
    Rule("aten.flip.default", _whole("dims")),
    Rule("aten.roll.default", _whole("dims")),
)
