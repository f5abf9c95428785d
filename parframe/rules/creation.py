"""Rules of operators that make tensors from nothing, or only from another's shape."""

from __future__ import annotations

from collections.abc import Callable

from parframe.rules.building import again, axes, signature
from parframe.rules.signature import Local, Rule, Signature, Site, letters


def _made(alike: bool) -> Callable[[Site], Signature | None]:
    """New axes: free where all elements are alike, else whole; inputs only tell the dtype."""

    def rule(site: Site) -> Signature | None:
        taken = [axes(f"t{i}_", len(t.shape)) for i, t in enumerate(site.inputs)]
        given = axes("a", len(site.outputs[0].shape))
        return signature(
            site,
            taken,
            [given],
            free=letters((given,)) if alike else (),
            dropped=letters(tuple(taken)),
        )

    return rule


def _like(site: Site) -> Signature | None:
    own = axes("a", len(site.inputs[0].shape))
    return signature(site, [own], [own])


def _local_size(local: Local) -> None:
    again(local, size=local.shape(local.site.operator.outputs[0]))


_FULL = "full.default zeros.default ones.default empty.memory_format"
_NEW = "new_full.default new_zeros.default new_ones.default new_empty.default"
_LIKE = "fill.Scalar full_like.default zeros_like.default ones_like.default empty_like.default"
_WHOLE = """arange.default arange.start arange.start_step linspace.default logspace.default
eye.default eye.m rand.default randn.default randint.default randint.low randperm.default
scalar_tensor.default tril_indices.default triu_indices.default hann_window.default"""

RULES = (
    *(
        Rule(f"aten.{name}", _made(alike=True), shapes=("size",), local=_local_size)
        for name in (*_FULL.split(), *_NEW.split())
    ),
    *(Rule(f"aten.{name}", _like) for name in _LIKE.split()),
    *(Rule(f"aten.{name}", _made(alike=False)) for name in _WHOLE.split()),
)
