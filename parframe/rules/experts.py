"""Rules of layers of experts."""

from __future__ import annotations

from parframe.graph import Arg
from parframe.rules.building import Axes, again, signature
from parframe.rules.signature import (
    Concat,
    Exchange,
    Local,
    Pattern,
    Rule,
    Shapes,
    Signature,
    Site,
)


def _experts(site: Site) -> Signature | None:
    """``n i, n c, n c, x (u f) i, x (u f), x o f, x o -> n o``.

    The first weight's rows are segments where there is a gate, ``[f | f]``, or ``(f u)`` where it
    is interleaved. What is not linear stands between the products, so ``i`` is whole; experts and
    their inner width are contracted.
    """
    gates, turned = site.arg("gates"), site.arg("transposed")
    inner: Pattern = ("f",)
    if gates > 1:
        inner = ("f", "u") if site.arg("interleaved") else (Concat((("f",),) * gates),)
    where: dict[str, Axes] = {
        "hidden": (("n",), ("i",)),
        "ids": (("n",), ("c",)),
        "weights": (("n",), ("c",)),
        "up": (("x",), ("i",), inner) if turned else (("x",), inner, ("i",)),
        "up_bias": (("x",), inner),
        "down": (("x",), ("f",), ("o",)) if turned else (("x",), ("o",), ("f",)),
        "down_bias": (("x",), ("o",)),
    }
    linear = "weights | down down_bias" if "down_bias" in site.operator.slots else "weights | down"
    return signature(
        site, [where[slot] for slot in site.operator.slots], [(("n",), ("o",))],
        whole="iu", linear=linear,
    )  # fmt: skip


def _where(local: Local) -> dict[str, Arg]:
    """Which experts the device has, and which of their columns: one device adds a shared bias."""
    return {
        "first": local.start("x") if local.split("x") else 0,
        "column": local.start("f") if _shares_bias(local) else 0,
    }


def _shares_bias(local: Local) -> bool:
    return local.split("f") and "down_bias" in local.site.operator.args


def _local_experts(local: Local) -> None:
    """Compute the device's experts only."""
    operator = local.site.operator
    if local.split("x") or _shares_bias(local):
        args = {**operator.args, **_where(local)}
        local.emit("parframe.local_experts", args, operator.outputs[0])
    else:
        again(local)


def _routed(shapes: Shapes, travels: tuple[str, ...], members: int) -> dict[str, int]:
    """Every token goes to the devices of its choices, once to each, and its result comes back."""
    tokens, width = shapes["hidden"]
    most = tokens * min(shapes["ids"][1], members - 1)
    return {"hidden": 2 * most * width}


ALL_TO_ALL = Exchange(
    "all_to_all",
    "parframe.expert_dispatch",
    stays="n",
    travels="x",
    says="tokens go to the devices that have their experts, results come back",
    sent=_routed,
    more=_where,
)


RULES = (
    Rule(
        "parframe.experts.default",
        _experts,
        local=_local_experts,
        roles={"x": "experts", "f": "expert_ffn"},
        exchanges=(ALL_TO_ALL,),
    ),
)
