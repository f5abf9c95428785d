"""Rules of matrix products and other contractions."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from parframe.graph import Operator
from parframe.rules.building import Dims, broadcast, signature, unit_free
from parframe.rules.kinds import Product
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Pattern, Signature, labels_of


def _matmul(site: Site) -> Signature | None:
    """Return ``... m k, ... k n -> ... m n``, with vectors and broadcast batches."""
    left, right = (tensor.shape for tensor in site.inputs)
    m: Dims = (("m",),) if len(left) > 1 else ()
    n: Dims = (("n",),) if len(right) > 1 else ()
    output = site.outputs[0].shape
    batch = output[: len(output) - len(m) - len(n)]
    one, two = broadcast(left[:-2], batch), broadcast(right[:-2], batch)
    if one is None or two is None:
        return None
    k: Dims = (("k",),)
    return signature(
        site, [(*one, *m, *k), (*two, *k, *n)], [(*unit_free(batch), *m, *n)],
        linear="self | other",
    )  # fmt: skip


def _added(product: str, linear: str) -> Callable[[Site], Signature | None]:
    """Return a rule of a product with an added tensor that broadcasts onto it."""
    left, right, output = (tuple((name,) for name in part.split()) for part in product.split(","))

    def rule(site: Site) -> Signature | None:
        bias, shape = site.inputs[0].shape, site.outputs[0].shape
        own: list[Pattern] = []
        if len(shape) == 1 and bias != shape:
            return None  # PyTorch gives such a product of nothing the shape of the addend
        offset = len(shape) - len(bias)
        for i, size in enumerate(bias):
            own.append(() if size == 1 else output[i + offset])
        taken = [tuple(own), left, right]
        if site.arg("beta", 1) != 1:
            return signature(site, taken, [output], whole=labels_of((left,)) - labels_of((output,)))
        return signature(site, taken, [output], linear=linear, addend="self")

    return rule


def _bare(
    plain: str, factors: tuple[str, str], names: tuple[str, str]
) -> Callable[[Operator], Operator]:
    """Return what leaves the addend out: the plain product, or ``beta = 0`` where it is scaled."""

    def bare(operator: Operator) -> Operator:
        if operator.args.get("alpha", 1) != 1:
            return attrs.evolve(operator, args={**operator.args, "beta": 0})
        args = {name: operator.args[factor] for factor, name in zip(factors, names, strict=True)}
        return attrs.evolve(operator, target=plain, args=args)

    return bare


def _einsum(site: Site) -> Signature | None:
    """Read the equation, if it has neither an ellipsis nor a repeated label in one term."""
    equation = str(site.arg("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        right = "".join(sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
    if "." in equation or any(len(set(term)) != len(term) for term in (*terms, right)):
        return None
    if len(terms) != len(site.inputs):
        return None
    taken = [
        tuple(() if size == 1 else (name,) for name, size in zip(term, tensor.shape, strict=False))
        for term, tensor in zip(terms, site.inputs, strict=True)
    ]
    given = tuple(
        () if size == 1 else (name,)
        for name, size in zip(right, site.outputs[0].shape, strict=False)
    )
    found = signature(site, taken, [given])
    if found is None:
        return None
    return attrs.evolve(found, linear=tuple(frozenset({i}) for i in range(len(taken))))


RULES = (
    Rule("aten.linear.default", "... i, o i, o? -> ... o", "input weight bias",
         linear="input | weight", addend="bias", fresh=True, one_dtype=True,
         kind=Product("input", "weight", columns_first=True), runtime="parframe.ops.linear:linear"),
    Rule("aten.matmul.default", _matmul, kind=Product("self", "other"), fresh=True, one_dtype=True),
    Rule("aten.mm.default", "m k, k n -> m n", "self mat2", linear="self | mat2",
         kind=Product("self", "mat2"), one_dtype=True),
    Rule("aten.bmm.default", "b m k, b k n -> b m n", "self mat2", linear="self | mat2",
         kind=Product("self", "mat2"), one_dtype=True),
    Rule("aten.mv.default", "m k, k -> m", "self vec", linear="self | vec", one_dtype=True),
    Rule("aten.dot.default", "k, k -> ", "self tensor", linear="self | tensor", one_dtype=True),
    Rule("aten.vdot.default", "k, k -> ", "self other", linear="self | other"),
    Rule("aten.outer.default", "m, n -> m n", "self vec2", linear="self | vec2"),
    Rule("aten.ger.default", "m, n -> m n", "self vec2", linear="self | vec2"),
    Rule("aten.einsum.default", _einsum),
    Rule("aten.addmm.default", _added("m k, k n, m n", "mat1 | mat2"),
         bare=_bare("aten.mm.default", ("mat1", "mat2"), ("self", "mat2")),
         kind=Product("mat1", "mat2"), one_dtype=True),
    Rule("aten.addbmm.default", _added("b m k, b k n, m n", "batch1 | batch2"),
         bare=lambda operator: attrs.evolve(operator, args={**operator.args, "beta": 0})),
    Rule("aten.baddbmm.default", _added("b m k, b k n, b m n", "batch1 | batch2"),
         bare=_bare("aten.bmm.default", ("batch1", "batch2"), ("self", "mat2")),
         kind=Product("batch1", "batch2"), one_dtype=True),
    Rule("aten.addmv.default", _added("m k, k, m", "mat | vec"),
         bare=_bare("aten.mv.default", ("mat", "vec"), ("self", "vec"))),
    Rule("aten.addr.default", _added("m, n, m n", "vec1 | vec2"),
         bare=_bare("aten.outer.default", ("vec1", "vec2"), ("self", "vec2"))),
)  # fmt: skip
