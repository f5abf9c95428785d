"""Rules of operators that create tensors, from nothing or from another tensor's shape."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from parframe.graph import Operator
from parframe.rules.building import again, label_dims, signature
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Signature, labels_of
from parframe.rules.slicing import starts_at_zero


def _made(alike: bool) -> Callable[[Site], Signature | None]:
    """Return a rule of new dims, free where all elements are alike; inputs give the dtype alone."""

    def rule(site: Site) -> Signature | None:
        taken = [label_dims(f"t{i}_", len(t.shape)) for i, t in enumerate(site.inputs)]
        given = label_dims("a", len(site.outputs[0].shape))
        return signature(
            site,
            taken,
            [given],
            free=labels_of((given,)) if alike else (),
            dropped=labels_of(tuple(taken)),
        )

    return rule


def _like(site: Site) -> Signature | None:
    own = label_dims("a", len(site.inputs[0].shape))
    return signature(site, [own], [own])


def _local_size(local: Local) -> None:
    again(local, size=local.shape(local.site.operator.outputs[0]))


def _as_arange(site: Site) -> Operator:
    """Return a range that begins at 0 with step 1 by its end alone, any other as it is."""
    operator = site.operator
    if not starts_at_zero(operator):
        return operator
    args = {"end": operator.args["end"], "dtype": site.outputs[0].dtype}
    return attrs.evolve(operator, target="aten.arange.default", args=args)


_FULL = "full.default zeros.default ones.default empty.memory_format"
_NEW = "new_full.default new_zeros.default new_ones.default new_empty.default"
_LIKE = "fill.Scalar full_like.default zeros_like.default ones_like.default empty_like.default"
_WHOLE = """linspace.default logspace.default
eye.default eye.m rand.default randn.default randint.default randint.low randperm.default
scalar_tensor.default tril_indices.default triu_indices.default hann_window.default"""

RULES = (
    *(
        Rule(f"aten.{name}", _made(alike=True), shapes=("size",), local=_local_size)
        for name in (*_FULL.split(), *_NEW.split())
    ),
    *(Rule(f"aten.{name}", _like) for name in _LIKE.split()),
    *(Rule(f"aten.{name}", _made(alike=False)) for name in _WHOLE.split()),
    *(
        Rule(f"aten.arange.{overload}", _made(alike=False), canonical=_as_arange)
        for overload in ("default", "start", "start_step")
    ),
)
