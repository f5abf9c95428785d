"""Rules of attention."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from parframe.rules.building import Dims, signature, unit_free
from parframe.rules.kinds import Attention
from parframe.rules.rule import DistributedForm, PricedCollective, Rule, Shapes, Site
from parframe.rules.signature import Pattern, Signature
from parframe.sizes import divide


def _onto(shape: tuple[object, ...], target: Dims) -> Dims:
    """Return the dims of a tensor that broadcasts onto dims."""
    own = target[len(target) - len(shape) :]
    return tuple(() if size == 1 else dim for size, dim in zip(shape, own, strict=True))


def _scaled_dot_product(site: Site) -> Signature | None:
    """Return ``... (k g) s d, ... k t d, ... k t e -> ... (k g) s e``, with an optional mask."""
    query, key = site.inputs[0].shape, site.inputs[1].shape
    value = site.inputs[2].shape
    if site.arg("dropout_p", 0.0) != 0:
        return None
    batch = unit_free(site.outputs[0].shape[:-2])
    if not len(query) == len(key) == len(value) == len(site.outputs[0].shape):
        return None
    heads: Dims = batch
    shared: Dims = batch
    sizes = {}
    if site.arg("enable_gqa", False):
        group = divide(query[-3], key[-3])
        if group is None or value[-3] != key[-3]:
            return None
        sizes = {"k": key[-3], "g": group}
        heads, shared = (*batch[:-1], ("k", "g")), (*batch[:-1], ("k",))
    s, t, d, e = (((name,),) for name in "stde")
    taken = [
        (*_onto(query[:-2], heads), *s, *d),
        (*_onto(key[:-2], shared), *t, *d),
        (*_onto(value[:-2], shared), *t, *e),
    ]
    mask = site.input("attn_mask")
    if mask is not None:
        taken.append(_onto(mask.shape, (*heads, *s, *t)))
    whole = "std" if site.arg("is_causal", False) else "td"
    return signature(site, taken, [(*heads, *s, *e)], sizes=sizes, whole=whole, linear="value")


def _attention(site: Site) -> Signature | None:
    """Return ``b (k g) s d, b k t d, b k t e -> b s (k g) e``; the other inputs broadcast."""
    query, key = site.inputs[0].shape, site.inputs[1].shape
    group = divide(query[1], key[1])
    if group is None:
        return None
    heads: Pattern = ("k", "g")
    b, k, s, t, d, e = (((name,),) for name in "bkstde")
    where: dict[str, Dims] = {
        "query": (*b, heads, *s, *d),
        "key": (*b, *k, *t, *d),
        "value": (*b, *k, *t, *e),
        "query_positions": (*b, *s),
        "key_positions": (*b, *t),
        "sinks": (heads,),
        "mask": (*b, heads, *s, *t),
    }
    taken = [
        where[slot] if slot in ("query", "key", "value") else _onto(tensor.shape, where[slot])
        for slot, tensor in zip(site.operator.slots, site.inputs, strict=True)
    ]
    return signature(
        site, taken, [(*b, *s, heads, *e)], sizes={"k": key[1], "g": group}, whole="td",
        linear="value",
    )  # fmt: skip


def _count_sent(shapes: Shapes, travels: tuple[str, ...], ranks: int) -> dict[str, int]:
    """Count every block that a device passes on: all that it has but the last."""
    return {slot: prod(shapes[slot]) * (ranks - 1) for slot in travels}


def _priced_as(widths: Mapping[str, float], ranks: int) -> tuple[PricedCollective, ...]:
    """Price the ring as a gather: every rank receives all keys and values."""
    return PricedCollective("all_gather", "key"), PricedCollective("all_gather", "value")


RING = DistributedForm(
    "ring",
    "parframe.ring_attention",
    stays="s",
    travels="t",
    description="keys and values pass round the devices, queries stay",
    count_sent=_count_sent,
    simulate="parframe.ops.ring_attention:simulate",
    run="parframe.ops.ring_attention:RUN",
    sizes={"queries": ("query", 2), "keys": ("key", 2)},
    measure_sent="parframe.ops.ring_attention:measure_sent",
    priced_as=_priced_as,
    hint="split the sequence with attention = 'all_gather'",
)

RULES = (
    Rule(
        "aten.scaled_dot_product_attention.default",
        _scaled_dot_product,
        kind=Attention(),
        one_dtype=True,
    ),
    Rule(
        "parframe.attention.default",
        _attention,
        kind=Attention(),
        state=("key", "value"),
        distributed_forms=(RING,),
        one_dtype=True,
        registered_by="parframe.ops.attention",
        runtime="parframe.ops.attention:fused_attention",
    ),
)
