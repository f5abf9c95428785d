"""Rules of convolutions, pooling and resizing."""

from __future__ import annotations

from collections.abc import Callable

from parframe.rules.building import Dims, guarded, label_dims, passing, signature
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Pattern, Signature, labels_of
from parframe.sizes import divide


def _convolution(transposed: bool) -> Callable[[Site], Signature | None]:
    """Return a rule ``b (g i) s, (g o) i k, (g o)? -> b (g o) t``: space is whole, groups pass."""

    def rule(site: Site) -> Signature | None:
        space = len(site.inputs[1].shape) - 2
        turned = bool(site.arg("transposed", transposed))
        batch: Dims = (("b",),) if len(site.inputs[0].shape) == space + 2 else ()
        groups = site.arg("groups", 1)
        channels = site.inputs[0].shape[len(batch)]
        made = site.outputs[0].shape[len(batch)]
        each, out = divide(channels, groups), divide(made, groups)
        if each is None or out is None:
            return None
        i: Pattern = () if each == 1 and groups != 1 else ("i",)
        o: Pattern = () if out == 1 and groups != 1 else ("o",)
        g: Pattern = () if groups == 1 else ("g",)
        window, before, after = (label_dims(label, space) for label in "kst")
        weight = ((*g, *i), o, *window) if turned else ((*g, *o), i, *window)
        bias: list[Dims] = [((*g, *o),)] if "bias" in site.operator.slots else []
        whole = labels_of((window, before))
        return signature(
            site,
            [(*batch, (*g, *i), *before), weight, *bias],
            [(*batch, (*g, *o), *after)],
            sizes={"g": groups, "i": each, "o": out},
            whole=whole,
            linear="input | weight",
            addend="bias",
        )

    return rule


def _local_groups(local: Local) -> None:
    grouped = local.site.arg("groups", 1) != 1
    guarded(local, "gio", groups=local.size("g") if grouped else 1)


def _space(count: int, linear: str = "") -> Callable[[Site], Signature | None]:
    """Return a rule in which the last dims are whole and the others pass."""

    def rule(site: Site) -> Signature | None:
        rank = len(site.inputs[0].shape)
        return passing(site, range(rank - count, rank), linear=linear)

    return rule


def _local_space(count: int) -> Callable[[Local], None]:
    """Return what writes the operator, guarded for channels but not for the batch."""

    def local_rule(local: Local) -> None:
        rank = len(local.site.inputs[0].shape)
        first = 1 if rank == count + 2 else 0
        guarded(local, [f"a{i}" for i in range(first, rank - count)])

    return local_rule


def _all_but_batch(count: int) -> Callable[[Site], Signature | None]:
    """Return a rule in which only the batch passes, where there is one."""

    def rule(site: Site) -> Signature | None:
        rank = len(site.inputs[0].shape)
        return passing(site, range(1 if rank == count + 2 else 0, rank))

    return rule


_CONVOLUTIONS = "conv1d.default conv2d.default conv3d.default conv1d.padding conv2d.padding"
_TRANSPOSED = "conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input"
_POOLS = {"max_pool": "", "avg_pool": "self", "adaptive_avg_pool": "self"}
_WITH_INDICES = ("max_pool{}d_with_indices", "adaptive_max_pool{}d")
_RESIZED = """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
upsample_bicubic2d upsample_trilinear3d"""

RULES = (
    *(
        Rule(f"aten.{name}", _convolution(turned), local=_local_groups, fresh=True, one_dtype=True)
        for names, turned in ((_CONVOLUTIONS, False), (_TRANSPOSED, True))
        for name in names.split()
    ),
    Rule("aten.convolution.default", _convolution(False), local=_local_groups, one_dtype=True),
    *(
        Rule(f"aten.{name}{n}d.default", _space(n, linear), local=_local_space(n), fresh=True)
        for name, linear in _POOLS.items()
        for n in (1, 2, 3)
    ),
    *(
        Rule(f"aten.{name.format(n)}.default", _all_but_batch(n))
        for name in _WITH_INDICES
        for n in (1, 2, 3)
    ),
    *(
        Rule(f"aten.{name}.{overload}", _space(int(name[-2])), local=_local_space(int(name[-2])))
        for name in _RESIZED.split()
        for overload in ("default", "vec")
    ),
)
