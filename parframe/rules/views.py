"""Rules of operators that change the shape and keep the order of elements."""

from __future__ import annotations

import attrs

from parframe.graph import Operator
from parframe.rules.building import always, label_dims, signature
from parframe.rules.factoring import Factoring
from parframe.rules.kinds import View
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Signature, labels_of


def factored(site: Site) -> Signature | None:
    """Match the dims of two shapes by their factors, in row-major order."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    if 0 in (*source, *target):
        return _empty(site)
    match = Factoring(source, target)
    match.run()
    left, right = (tuple(tuple(dim) for dim in side) for side in match.patterns)
    return signature(site, [left], [right], sizes=match.sizes, whole=match.whole, moves=True)


def _empty(site: Site) -> Signature | None:
    """Pass equal shapes without elements; other dims are whole."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    taken = label_dims("a", len(source))
    if source == target:
        return signature(site, [taken], [taken], moves=True)
    given = label_dims("b", len(target))
    return signature(site, [taken], [given], whole=labels_of((taken, given)), moves=True)


def _factored_like(site: Site) -> Signature | None:
    """View a tensor in the shape of another one, whose elements are not used."""
    alone = factored(Site(site.operator, site.inputs[:1], site.outputs))
    if alone is None or len(site.inputs) != 2:
        return None
    other = label_dims("t", len(site.inputs[1].shape))
    return signature(
        site, [alone.inputs[0], other], alone.outputs, sizes=alone.sizes, whole=alone.whole,
        dropped=labels_of((other,)), linear="self",
    )  # fmt: skip


def _local_reshape(local: Local) -> None:
    """Write a reshape, since a device's part may not be contiguous."""
    operator = local.site.operator
    (output,) = operator.outputs
    args = {"self": operator.args["self"], "shape": local.shape(output)}
    local.emit("aten.reshape.default", args, output)


def _as_reshape(site: Site) -> Operator:
    """Return a reshape, since the input need not be contiguous once copies are left out."""
    args = {"self": site.operator.args["self"], "shape": site.outputs[0].shape}
    return attrs.evolve(site.operator, target="aten.reshape.default", args=args)


RESHAPES = frozenset({"aten.view.default", "aten.reshape.default"})

_RESHAPED = "view.default reshape.default _unsafe_view.default view_copy.default"
_FACTORED = """_reshape_alias.default ravel.default unflatten.int squeeze.default squeeze.dim
squeeze.dims atleast_1d.default atleast_2d.default atleast_3d.default"""
_COPIES = "squeeze_copy.default squeeze_copy.dim squeeze_copy.dims"

RULES = (
    *(
        Rule(
            f"aten.{name}",
            factored,
            local=_local_reshape,
            kind=View(),
            identity=always,
            canonical=_as_reshape,
        )
        for name in _RESHAPED.split()
    ),
    *(
        Rule(
            f"aten.{name}.default",
            _factored_like,
            local=_local_reshape,
            kind=View(),
            canonical=_as_reshape,
        )
        for name in ("view_as", "reshape_as")
    ),
    Rule("aten.flatten.using_ints", factored, local=_local_reshape, kind=View(), identity=always),
    *(
        Rule(f"aten.{name}", factored, local=_local_reshape, kind=View())
        for name in _FACTORED.split()
    ),
    *(Rule(f"aten.{name}", factored, local=_local_reshape) for name in _COPIES.split()),
    Rule("aten.unsqueeze.default", factored, kind=View()),
    Rule("aten.unsqueeze_copy.default", factored),
)
