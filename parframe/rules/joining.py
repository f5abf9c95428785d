"""Rules of operators that join tensors, or a tensor and padding, along a dim."""

from __future__ import annotations

from typing import Any

from parframe.rules.building import Dims, again, dim_index, guarded, label_dims, passing, signature
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Concat, Pattern, Signature
from parframe.rules.slicing import replace, segments
from parframe.sizes import Size


def _cat(site: Site) -> Signature | None:
    """Join segments: ``a, b -> [a | b]``."""
    rank = len(site.outputs[0].shape)
    at = dim_index(site.arg("dim", 0), rank)
    shared = label_dims("a", rank)
    taken: list[Dims] = []
    parts: list[Pattern] = []
    sizes: dict[str, Size] = {}
    for i, tensor in enumerate(site.inputs):
        if tensor.shape == (0,) and rank != 1:
            taken.append(((f"e{i}",),))
            continue
        size = tensor.shape[at]
        pattern: Pattern = () if size == 1 else (f"s{i}",)
        taken.append(replace(shared, at, pattern))
        if size != 0:
            parts.append(pattern)
            sizes[f"s{i}"] = size
    joined = parts[0] if len(parts) == 1 else (Concat(tuple(parts)),)
    if not parts:
        joined = ("none",)
    empty = [f"e{i}" for i in range(len(site.inputs))]
    empty += [f"s{i}" for i, t in enumerate(site.inputs) if f"s{i}" not in sizes]
    return signature(
        site, taken, [replace(shared, at, joined)], sizes=sizes, whole=empty, dropped=empty,
        linear="tensors", moves=True,
    )  # fmt: skip


def _stack(site: Site) -> Signature | None:
    rank = len(site.outputs[0].shape)
    at = dim_index(site.arg("dim", 0), rank)
    taken = label_dims("a", rank - 1)
    given = (*taken[:at], ("new",), *taken[at:])
    return signature(site, [taken] * len(site.inputs), [given], linear="tensors", moves=True)


def _pad(site: Site) -> Signature | None:
    """Pad with a constant: ``a -> [before | a | after]``."""
    widths = _widths(site)
    changed = [i for i, width in enumerate(widths) if width != (0, 0)]
    value = site.arg("value", 0)
    linear = "self" if value == 0 else ""
    if site.arg("mode", "constant") != "constant" or any(
        not isinstance(n, int) or n < 0 for i in changed for n in widths[i]
    ):
        constant = site.arg("mode", "constant") == "constant"
        return passing(site, changed, linear=linear if constant else "self")
    taken = label_dims("a", len(site.inputs[0].shape))
    given: list[Pattern] = list(taken)
    sizes: dict[str, Size] = {}
    for i in changed:
        size = site.inputs[0].shape[i]
        before, after = widths[i]
        pattern, found = segments([(f"b{i}", before), (f"a{i}", size), (f"c{i}", after)])
        given[i] = pattern
        sizes.update(found)
        if size == 1:
            taken = replace(taken, i, ())
        if size == 0:
            return passing(site, changed, linear=linear)
    free = [f"{side}{i}" for i in changed for side in "bc"]
    return signature(site, [taken], [tuple(given)], sizes=sizes, free=free, linear=linear)


def _widths(site: Site) -> list[tuple[Any, Any]]:
    """Return the widths added before and after each dim."""
    pad = site.arg("pad")
    rank = len(site.inputs[0].shape)
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return [(0, 0)] * (rank - len(pairs)) + pairs[::-1]


def _local_pad(local: Local) -> None:
    if local.site.arg("mode", "constant") != "constant":
        rank = len(local.site.inputs[0].shape)
        guarded(local, [f"a{i}" for i in range(rank)])
        return
    widths = _widths(local.site)
    sizes = local.signature.sizes
    pad: list[Size] = []
    for i, sides in reversed(list(enumerate(widths))):
        for side, width in zip("bc", sides, strict=True):
            pad.append(local.size(f"{side}{i}") if f"{side}{i}" in sizes else width)
    again(local, pad=tuple(pad))


RULES = (
    Rule("aten.cat.default", _cat),
    Rule("aten.concat.default", _cat),
    Rule("aten.concatenate.default", _cat),
    Rule("aten.stack.default", _stack),
    Rule("aten.constant_pad_nd.default", _pad, local=_local_pad),
    Rule("aten.pad.default", _pad, local=_local_pad),
)
