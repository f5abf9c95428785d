"""Rules of layers of experts."""

from __future__ import annotations

from collections.abc import Mapping

from parframe.graph import Arg
from parframe.rules.building import Dims, again, signature
from parframe.rules.kinds import Experts
from parframe.rules.rule import DistributedForm, Local, PricedCollective, Rule, Shapes, Site
from parframe.rules.signature import Concat, Pattern, Signature


def _experts(site: Site) -> Signature | None:
    """Return ``n i, n c, n c, x (u f) i, x (u f), x o f, x o -> n o``.

    The first weight's rows are segments where there is a gate, ``[f | f]``, or ``(f u)`` where it
    is interleaved. What is not linear stands between the products, so ``i`` is whole; experts and
    their inner width are contracted.
    """
    gates, turned = site.arg("gates"), site.arg("transposed")
    inner: Pattern = ("f",)
    if gates > 1:
        inner = ("f", "u") if site.arg("interleaved") else (Concat((("f",),) * gates),)
    where: dict[str, Dims] = {
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


def _part_arguments(local: Local) -> dict[str, Arg]:
    """Return the first expert of a device and their first column: column 0 adds a shared bias."""
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
        args = {**operator.args, **_part_arguments(local)}
        local.emit("parframe.local_experts", args, operator.outputs[0])
    else:
        again(local)


def _count_sent(shapes: Shapes, travels: tuple[str, ...], ranks: int) -> dict[str, int]:
    """Count tokens that go once to each device of their choices, and results that return."""
    tokens, width = shapes["hidden"]
    most = tokens * min(shapes["ids"][1], ranks - 1)
    return {"hidden": 2 * most * width}


def _priced_as(widths: Mapping[str, float], ranks: int) -> tuple[PricedCollective, ...]:
    """Price tokens that go to the ranks of their experts, once to each, and results that return.

    The choices are taken as independent, so that a rank of ``m`` is among those of a token with
    ``c`` choices with the probability ``1 - (1 - 1/m)^c``.
    """
    reached = (ranks - 1) * (1 - (1 - 1 / ranks) ** widths["ids"])
    return (PricedCollective("all_to_all", "hidden", factor=reached, count=2),)


DISPATCH = DistributedForm(
    "all_to_all",
    "parframe.expert_dispatch",
    stays="n",
    travels="x",
    description="tokens go to the devices that have their experts, results come back",
    count_sent=_count_sent,
    simulate="parframe.ops.expert_dispatch:simulate",
    run="parframe.ops.expert_dispatch:RUN",
    arguments=_part_arguments,
    sizes={"counts": ("up", 0)},
    lists={"firsts": "first"},
    measure_sent="parframe.ops.expert_dispatch:measure_sent",
    priced_as=_priced_as,
)


RULES = (
    Rule(
        "parframe.experts.default",
        _experts,
        local=_local_experts,
        roles={"x": "experts", "f": "expert_ffn"},
        distributed_forms=(DISPATCH,),
        kind=Experts(),
        registered_by="parframe.ops.experts",
    ),
)
