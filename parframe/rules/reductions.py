"""Rules of operators that reduce, scan or sort along dims."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from parframe.graph import Ref
from parframe.rules.building import (
    Dims,
    again,
    dim_index,
    dim_indices,
    label_dims,
    passing,
    signature,
)
from parframe.rules.decompositions import logsumexp, softmax, statistics, vector_norm
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Signature
from parframe.sizes import product


def reduced(
    site: Site,
    dims: Iterable[int],
    *,
    whole: bool = False,
    linear: str = "",
    reduction: str = "sum",
) -> Signature | None:
    """Contract the dims ``dims``, or keep them whole; the others pass."""
    gone = frozenset(dims)
    taken = label_dims("a", len(site.inputs[0].shape))
    keeps = bool(site.arg("keepdim", False))
    given: Dims = tuple(
        () if i in gone else dim for i, dim in enumerate(taken) if keeps or i not in gone
    )
    labels = [f"a{i}" for i in gone]
    return signature(
        site, [taken], [given] * len(site.outputs), whole=labels if whole else (),
        linear=linear, reduction=reduction,
    )  # fmt: skip


def _over(site: Site) -> frozenset[int]:
    return dim_indices(site.arg("dim"), len(site.inputs[0].shape))


def _reduction(
    linear: str = "", reduction: str = "sum", whole: bool = False
) -> Callable[[Site], Signature | None]:
    return lambda site: reduced(site, _over(site), linear=linear, reduction=reduction, whole=whole)


def _any_dims(reduction: str) -> Callable[[Site], Signature | None]:
    """Return a rule that covers no empty list of dims, which reduces nothing."""
    return lambda site: (
        None if site.arg("dim") == () else reduced(site, _over(site), reduction=reduction)
    )


def _split(local: Local) -> bool:
    return any(local.split(label) for label in local.signature.contracted())


def _local_mean(local: Local) -> None:
    """Divide the sum of the device's part by the size of the whole."""
    if not _split(local):
        again(local)
        return
    site = local.site
    (output,) = site.operator.outputs
    over = _over(site)
    count = product(site.inputs[0].shape[i] for i in over)
    args = {
        "self": site.operator.args["self"],
        "dim": tuple(sorted(over)),
        "keepdim": site.arg("keepdim", False),
        "dtype": site.outputs[0].dtype,
    }
    part = local.emit("aten.sum.dim_IntList", args, local.shape(output), site.outputs[0].dtype)
    local.emit("aten.div.Scalar", {"self": Ref(part), "other": count}, output)


def _local_extreme(target: str) -> Callable[[Local], None]:
    """Return what writes an extreme that is neutral where the device has no elements."""

    def local_rule(local: Local) -> None:
        if not _split(local):
            again(local)
            return
        site = local.site
        args = {
            "self": site.operator.args["self"],
            "dim": tuple(sorted(_over(site))),
            "keepdim": site.arg("keepdim", False),
        }
        local.emit(target, args, site.operator.outputs[0])

    return local_rule


def _scan(linear: str = "") -> Callable[[Site], Signature | None]:
    """Return a rule in which a dim is whole and stays, and the others pass."""
    return lambda site: passing(
        site,
        [dim_index(site.arg("dim", -1), len(site.inputs[0].shape))] if site.inputs[0].shape else [],
        linear=linear,
    )


def _flat_whole(site: Site) -> Signature | None:
    """Keep every dim whole."""
    taken = [label_dims(f"i{n}_", len(tensor.shape)) for n, tensor in enumerate(site.inputs)]
    given = [label_dims(f"o{n}_", len(tensor.shape)) for n, tensor in enumerate(site.outputs)]
    whole = [str(label) for tensor in (*taken, *given) for dim in tensor for label in dim]
    return signature(site, taken, given, whole=whole)


def _diff(site: Site) -> Signature | None:
    """Take differences along a whole dim, with tensors before and after."""
    rank = len(site.inputs[0].shape)
    at = dim_index(site.arg("dim", -1), rank)
    shared = label_dims("a", rank)
    own = [(*shared[:at], (f"d{i}",), *shared[at + 1 :]) for i in range(len(site.inputs) + 1)]
    return signature(
        site, own[:-1], own[-1:], whole=[f"d{i}" for i in range(len(own))],
        linear=" ".join(site.operator.slots),
    )  # fmt: skip


_SCANS = """cumprod.default cummax.default cummin.default logcumsumexp.default sort.default
sort.stable argsort.default argsort.stable topk.default _safe_softmax.default"""
_WHOLE = """max.dim min.dim argmax.default argmin.default median.dim nanmedian.dim mode.default
kthvalue.default aminmax.default median.default nanmedian.default"""
_STATISTICS = "var std var_mean std_mean"
_SOFTMAXES = "softmax.int _softmax.default log_softmax.int _log_softmax.default"
_SUMS = "sum.default sum.dim_IntList"
_COUNTS = "nansum.default count_nonzero.default count_nonzero.dim_IntList"
_OTHER_REDUCTIONS = {
    "prod": "prod.default prod.dim_int",
    "max": "any.default any.dim",
    "min": "all.default all.dim",
}
_EXTREMES = {"max": "amax.default max.default", "min": "amin.default min.default"}
RULES = (
    *(Rule(f"aten.{name}", _reduction("self")) for name in _SUMS.split()),
    *(Rule(f"aten.{name}", _reduction()) for name in _COUNTS.split()),
    Rule("aten.mean.default", _reduction("self"), local=_local_mean),
    Rule("aten.mean.dim", _reduction("self"), local=_local_mean),
    *(
        Rule(f"aten.{name}", _reduction(reduction=reduction))
        for reduction, names in _OTHER_REDUCTIONS.items()
        for name in names.split()
    ),
    Rule("aten.any.dims", _any_dims("max")),
    Rule("aten.all.dims", _any_dims("min")),
    *(
        Rule(
            f"aten.{name}",
            _reduction(reduction=reduction),
            local=_local_extreme(f"parframe.a{reduction}"),
        )
        for reduction, names in _EXTREMES.items()
        for name in names.split()
    ),
    *(Rule(f"aten.{name}", _reduction(whole=True)) for name in _WHOLE.split()),
    *(
        Rule(f"aten.{name}.{overload}", _reduction(whole=True), decompose=statistics(name))
        for name in _STATISTICS.split()
        for overload in ("default", "dim", "correction")
    ),
    *(
        Rule(f"aten.{name}", _scan(), decompose=softmax("log" in name))
        for name in _SOFTMAXES.split()
    ),
    Rule("aten.logsumexp.default", _reduction(whole=True), decompose=logsumexp),
    Rule("aten.linalg_vector_norm.default", _reduction(whole=True), decompose=vector_norm),
    Rule("aten.cumsum.default", _scan("self")),
    *(Rule(f"aten.{name}", _scan()) for name in _SCANS.split()),
    Rule("aten.msort.default", lambda site: passing(site, [0] if site.inputs[0].shape else [])),
    Rule("aten.diff.default", _diff),
    *(Rule(f"aten.{name}", _flat_whole) for name in ("histc.default", "trace.default")),
)
