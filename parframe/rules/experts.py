"""Rules of layers of experts."""

from __future__ import annotations

from parframe.rules.building import Axes, again, signature
from parframe.rules.signature import Concat, Local, Pattern, Rule, Signature, Site


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


def _local_experts(local: Local) -> None:
    """Compute the device's experts only; of those who share a bias, one adds it."""
    operator = local.site.operator
    shared = local.split("f") and "down_bias" in operator.args
    if not local.split("x") and not shared:
        again(local)
        return
    args = {
        **operator.args,
        "first": local.start("x") if local.split("x") else 0,
        "column": local.start("f") if shared else 0,
    }
    local.emit("parframe.some_experts", args, operator.outputs[0])


RULES = (
    Rule(
        "parframe.experts.default",
        _experts,
        local=_local_experts,
        roles={"x": "experts", "f": "expert_ffn"},
    ),
)
