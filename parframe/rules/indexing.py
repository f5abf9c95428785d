"""Rules of operators that read or write elements by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parframe.graph import Ref
from parframe.rules.building import (
    Dims,
    again,
    broadcast,
    dim_index,
    label_dims,
    passing,
    signature,
    unit_free,
)
from parframe.rules.kinds import Lookup
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Pattern, Signature, labels_of

INDEX = "aten.index.Tensor"


def _local_embedding(local: Local) -> None:
    """Look up only the device's rows; other rows give zeros."""
    if not local.split("v"):
        again(local)
        return
    operator = local.site.operator
    args = {
        "weight": operator.args["weight"],
        "indices": operator.args["indices"],
        "start": local.start("v"),
    }
    local.emit("parframe.embedding", args, operator.outputs[0])


def _indexed(
    site: Site, shape: tuple[Any, ...], result: tuple[Any, ...]
) -> tuple[Dims, list[Dims], Dims, list[str]] | None:
    """Return the dims of the tensor, of the indices and of the result, and the whole labels."""
    chosen = site.arg("indices")
    places = [i for i, index in enumerate(chosen) if isinstance(index, Ref)]
    tensors = [t for slot, t in zip(site.operator.slots, site.inputs, strict=True)
               if slot == "indices"]  # fmt: skip
    if not places or any(tensor.dtype in ("bool", "uint8") for tensor in tensors):
        return None
    taken = label_dims("a", len(shape))
    rank = max(len(tensor.shape) for tensor in tensors)
    adjacent = places == list(range(places[0], places[-1] + 1))
    at = places[0] if adjacent else 0
    common = result[at : at + rank]
    if len(result) != len(shape) - len(places) + rank:
        return None
    indices = [broadcast(tensor.shape, common, "i") for tensor in tensors]
    present = [one for one in indices if one is not None]
    if len(present) < len(indices):
        return None
    rest = [dim for i, dim in enumerate(taken) if i not in places]
    given = (*rest[:at], *unit_free(common, "i"), *rest[at:])
    return taken, present, given, [f"a{i}" for i in places]


def _index(site: Site) -> Signature | None:
    """Keep indexed dims whole; the indices' dims take their place."""
    found = _indexed(site, site.inputs[0].shape, site.outputs[0].shape)
    if found is None:
        return None
    taken, indices, given, whole = found
    return signature(site, [taken, *indices], [given], whole=whole, dropped=whole, linear="self")


def _index_put(site: Site) -> Signature | None:
    """Keep indexed dims and every index whole; the other dims pass."""
    shape = site.inputs[0].shape
    chosen = site.arg("indices")
    places = [i for i, index in enumerate(chosen) if isinstance(index, Ref)]
    if any(t.dtype in ("bool", "uint8") for t in site.inputs[1:-1]) or not places:
        return None
    rank = max(len(tensor.shape) for tensor in site.inputs[1:-1])
    adjacent = places == list(range(places[0], places[-1] + 1))
    at = places[0] if adjacent else 0
    taken = label_dims("a", len(shape))
    rest = [i for i in range(len(shape)) if i not in places]
    target: list[Pattern] = [*(taken[i] for i in rest)]
    target[at:at] = label_dims("i", rank)
    sizes = [shape[i] for i in rest]
    sizes[at:at] = [None] * rank
    values: list[Pattern] = []
    offset = len(target) - len(site.inputs[-1].shape)
    if offset < 0:
        return None
    for i, size in enumerate(site.inputs[-1].shape):
        indexed = sizes[i + offset] is None
        values.append((f"v{i}",) if indexed else () if size == 1 else target[i + offset])
    others = [label_dims(f"x{n}_", len(t.shape)) for n, t in enumerate(site.inputs[1:-1])]
    whole = [f"a{i}" for i in places]
    whole += [f"v{i}" for i in range(len(values))]
    whole += labels_of(tuple(others))
    return signature(
        site, [taken, *others, tuple(values)], [taken], whole=whole, linear="self values"
    )


def _index_select(site: Site) -> Signature | None:
    rank = len(site.inputs[0].shape)
    if rank == 0:
        return None
    at = dim_index(site.arg("dim"), rank)
    taken = label_dims("a", rank)
    index: Dims = (("i",),) if site.inputs[1].shape else ()
    given = (*taken[:at], ("i",) if index else (), *taken[at + 1 :])
    return signature(
        site, [taken, index], [given], whole=[f"a{at}"], dropped=[f"a{at}"], linear="self"
    )


def _along(linear: str, result_of: str) -> Callable[[Site], Signature | None]:
    """Return a rule of gather and scatter: the dim is whole; others pass if equal everywhere."""

    def rule(site: Site) -> Signature | None:
        rank = len(site.inputs[0].shape)
        if any(len(t.shape) != rank or not rank for t in site.inputs):
            return None
        if site.arg("dim") is None:
            return None
        at = dim_index(site.arg("dim"), rank)
        shapes = [t.shape for t in (*site.inputs, *site.outputs)]
        even = [i for i in range(rank) if len({shape[i] for shape in shapes}) == 1 and i != at]
        whole = []
        patterns = []
        for n in range(len(shapes)):
            own: list[Pattern] = []
            for i in range(rank):
                label = f"a{i}" if i in even else f"t{n}_{i}"
                if i not in even:
                    whole.append(label)
                own.append((label,))
            patterns.append(tuple(own))
        if result_of == "index":
            patterns[-1] = tuple(
                dim if i != at else patterns[1][i] for i, dim in enumerate(patterns[-1])
            )
            whole.remove(f"t1_{at}")
            for i in range(rank):
                if i not in even and i != at:
                    patterns[-1] = (*patterns[-1][:i], patterns[1][i], *patterns[-1][i + 1 :])
        return signature(
            site, patterns[:-1], patterns[-1:], whole=whole,
            dropped=[label for label in whole if label.startswith("t0_")], linear=linear,
        )  # fmt: skip

    return rule


def _scatter_value(site: Site) -> Signature | None:
    return _along("self" if site.arg("value") == 0 else "", "self")(site)


def _index_into(linear: str) -> Callable[[Site], Signature | None]:
    """Return a rule of ``index_add`` and similar operators: the dim is whole, the others pass."""

    def rule(site: Site) -> Signature | None:
        rank = len(site.inputs[0].shape)
        if rank == 0:
            return None
        at = dim_index(site.arg("dim"), rank)
        taken = label_dims("a", rank)
        index = label_dims("i", len(site.inputs[1].shape))
        more = [
            (*taken[:at], ("s",), *taken[at + 1 :]) if len(t.shape) == rank else ()
            for t in site.inputs[2:]
        ]
        return signature(
            site, [taken, index, *more], [taken], whole=[f"a{at}", "i0", "s"], linear=linear
        )

    return rule


def _put(site: Site) -> Signature | None:
    """Keep a dim whole of which a part is replaced; the others pass."""
    rank = len(site.inputs[0].shape)
    at = dim_index(site.arg("dim", 0), rank)
    taken = label_dims("a", rank)
    put = (("s",),) if len(site.inputs[1].shape) == rank else ()
    return signature(
        site, [taken, (*taken[:at], *put, *taken[at + 1 :])], [taken], whole=[f"a{at}", "s"],
        linear="self src",
    )  # fmt: skip


def _triangle(site: Site) -> Signature | None:
    rank = len(site.inputs[0].shape)
    return passing(site, [rank - 2, rank - 1], linear="self") if rank > 1 else None


def _against(tensor: int) -> Callable[[Site], Signature | None]:
    """Return a rule in which every element is looked up in another tensor, which is whole."""

    def rule(site: Site) -> Signature | None:
        patterns = [
            label_dims("t", len(t.shape)) if i == tensor else label_dims("a", len(t.shape))
            for i, t in enumerate(site.inputs)
        ]
        whole = labels_of((patterns[tensor],))
        given = label_dims("a", len(site.outputs[0].shape))
        return signature(site, patterns, [given], whole=whole, dropped=whole)

    return rule


RULES = (
    Rule(
        "aten.embedding.default",
        "v h, ... -> ... h",
        "weight indices",
        linear="weight",
        local=_local_embedding,
        kind=Lookup(),
        indices=("weight", "indices"),
    ),
    Rule(INDEX, _index, indices=("self", "indices")),
    Rule("aten.index_select.default", _index_select, indices=("self", "index")),
    Rule("aten.index_put.default", _index_put),
    Rule("aten.gather.default", _along("self", "index"), indices=("self", "index")),
    Rule("aten.scatter.src", _along("self src", "self")),
    Rule("aten.scatter.value", _scatter_value),
    Rule("aten.scatter.reduce", _along("", "self")),
    Rule("aten.scatter_add.default", _along("self src", "self")),
    Rule("aten.scatter_reduce.two", _along("", "self")),
    Rule("aten.take_along_dim.default", _along("self", "index")),
    Rule("aten.select_scatter.default", _put),
    Rule("aten.slice_scatter.default", _put),
    Rule("aten.index_reduce.default", _index_into("")),
    Rule("aten.index_add.default", _index_into("self source")),
    Rule("aten.index_copy.default", _index_into("self source")),
    Rule("aten.index_fill.int_Scalar", _index_into("")),
    Rule("aten.one_hot.default", "... -> ... c", "self"),
    Rule("aten.tril.default", _triangle),
    Rule("aten.triu.default", _triangle),
    Rule("aten.bucketize.Tensor", _against(1)),
    Rule("aten.isin.Tensor_Tensor", _against(1)),
)
