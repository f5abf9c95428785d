"""Rules of operators that give the same elements, in the same order, another shape."""

from __future__ import annotations

import attrs

from parframe.graph import Operator
from parframe.rules.building import always, axes, signature
from parframe.rules.factoring import Factoring
from parframe.rules.kinds import View
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Signature, labels_of


def factored(site: Site) -> Signature | None:
    """The same elements in row-major order: axes are matched by their factors."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    if 0 in (*source, *target):
        return _empty(site)
    match = Factoring(source, target)
    match.run()
    left, right = (tuple(tuple(axis) for axis in side) for side in match.patterns)
    return signature(site, [left], [right], sizes=match.sizes, whole=match.whole, moves=True)


def _empty(site: Site) -> Signature | None:
    """No elements: equal shapes pass, others are whole."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    taken = axes("a", len(source))
    if source == target:
        return signature(site, [taken], [taken], moves=True)
    given = axes("b", len(target))
    return signature(site, [taken], [given], whole=labels_of((taken, given)), moves=True)


def _factored_like(site: Site) -> Signature | None:
    """A view to the shape of another tensor, whose elements do not count."""
    alone = factored(Site(site.operator, site.inputs[:1], site.outputs))
    if alone is None or len(site.inputs) != 2:
        return None
    other = axes("t", len(site.inputs[1].shape))
    return signature(
        site, [alone.inputs[0], other], alone.outputs, sizes=alone.sizes, whole=alone.whole,
        dropped=labels_of((other,)), linear="self",
    )  # fmt: skip


def _local_reshape(local: Local) -> None:
    """A device's part need not lie contiguous, so a view becomes a reshape."""
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
