"""Rules of operators that give the same elements, in the same order, another shape."""

from __future__ import annotations

from parframe.rules.building import axes, signature
from parframe.rules.factoring import Factoring
from parframe.rules.signature import Local, Rule, Signature, Site, letters


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
    return signature(site, [taken], [given], whole=letters((taken, given)), moves=True)


def _factored_like(site: Site) -> Signature | None:
    """A view to the shape of another tensor, whose elements do not count."""
    alone = factored(Site(site.operator, site.inputs[:1], site.outputs))
    if alone is None or len(site.inputs) != 2:
        return None
    other = axes("t", len(site.inputs[1].shape))
    return signature(
        site, [alone.inputs[0], other], alone.outputs, sizes=alone.sizes, whole=alone.whole,
        dropped=letters((other,)), linear="self",
    )  # fmt: skip


def _local_reshape(local: Local) -> None:
    """A device's part need not lie contiguous, so a view becomes a reshape."""
    operator = local.site.operator
    (output,) = operator.outputs
    args = {"self": operator.args["self"], "shape": local.shape(output)}
    local.emit("aten.reshape.default", args, output)


_FACTORED = """view.default reshape.default _unsafe_view.default _reshape_alias.default
flatten.using_ints ravel.default unflatten.int squeeze.default squeeze.dim squeeze.dims
view_copy.default squeeze_copy.default squeeze_copy.dim squeeze_copy.dims"""

RULES = (
    *(Rule(f"aten.{name}", factored, local=_local_reshape) for name in _FACTORED.split()),
    *(
        Rule(f"aten.{name}.default", _factored_like, local=_local_reshape)
        for name in ("view_as", "reshape_as")
    ),
    Rule("aten.unsqueeze.default", factored),
    Rule("aten.unsqueeze_copy.default", factored),
    Rule("aten.atleast_1d.default", factored, local=_local_reshape),
    Rule("aten.atleast_2d.default", factored, local=_local_reshape),
    Rule("aten.atleast_3d.default", factored, local=_local_reshape),
)
