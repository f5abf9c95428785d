"""Rules of normalizations."""

from __future__ import annotations

from collections.abc import Callable

from parframe.rules.building import Dims, guarded, label_dims, signature
from parframe.rules.decompositions import layer_norm, rms_norm
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Pattern, Signature, labels_of
from parframe.sizes import divide


def _last_axes(site: Site) -> Signature | None:
    """Keep the last dims whole, which weight and bias have."""
    rank = len(site.inputs[0].shape)
    count = len(site.arg("normalized_shape"))
    taken = label_dims("a", rank)
    own = taken[rank - count :]
    small = (*taken[: rank - count], *[()] * count)
    return signature(
        site, [taken, *[own] * (len(site.inputs) - 1)],
        [taken, *[small] * (len(site.outputs) - 1)],
        whole=[f"a{i}" for i in range(rank - count, rank)],
    )  # fmt: skip


def _channels(site: Site) -> Signature | None:
    """Pass every dim of a batch norm in inference; the second one has weight and statistics."""
    if site.arg("training", False) or "running_mean" not in site.operator.slots:
        return None
    taken = label_dims("a", len(site.inputs[0].shape))
    if len(taken) < 2:
        return None
    outputs = [taken, *[(("none",),)] * (len(site.outputs) - 1)]
    return signature(site, [taken, *[(taken[1],)] * (len(site.inputs) - 1)], outputs)


def _groups(arg: str) -> Callable[[Site], Signature | None]:
    """Return a rule in which groups of channels pass, and all within a group is whole."""

    def rule(site: Site) -> Signature | None:
        groups = site.arg(arg)
        channels = site.inputs[0].shape[1]
        each = divide(channels, groups)
        if each is None:
            return None
        pattern: Pattern = ("g", "c")
        spatial: Dims = label_dims("s", len(site.inputs[0].shape) - 2)
        taken: Dims = (("n",), pattern, *spatial)
        whole = {"c", *labels_of((spatial,))}
        small: Dims = (("n",), ("g",))
        return signature(
            site, [taken, *[(pattern,)] * (len(site.inputs) - 1)],
            [taken, *[small] * (len(site.outputs) - 1)],
            sizes={"g": groups, "c": each}, whole=whole,
        )  # fmt: skip

    return rule


def _instances(site: Site) -> Signature | None:
    """Pass batch and channels of an instance norm."""
    if not site.arg("use_input_stats", True) or "running_mean" in site.operator.slots:
        return None
    taken = label_dims("a", len(site.inputs[0].shape))
    return signature(
        site, [taken, *[(taken[1],)] * (len(site.inputs) - 1)], [taken],
        whole=[f"a{i}" for i in range(2, len(taken))],
    )  # fmt: skip


RULES = (
    Rule("aten.layer_norm.default", _last_axes, decompose=layer_norm, fresh=True, one_dtype=True),
    Rule("aten.native_layer_norm.default", _last_axes, decompose=layer_norm, one_dtype=True),
    Rule("aten.rms_norm.default", _last_axes, decompose=rms_norm, one_dtype=True),
    Rule(
        "aten.group_norm.default",
        _groups("num_groups"),
        fresh=True,
        one_dtype=True,
        local=lambda local: guarded(local, "ng", num_groups=local.size("g")),
    ),
    Rule(
        "aten.instance_norm.default", _instances, local=lambda local: guarded(local, ["a0", "a1"])
    ),
    Rule(
        "aten.batch_norm.default",
        _channels,
        fresh=True,
        one_dtype=True,
        local=lambda local: guarded(local, ["a1"]),
    ),
    Rule("aten._native_batch_norm_legit_no_training.default", _channels),
)
