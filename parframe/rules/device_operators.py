"""The operators that only programs of devices have, written where rules make calls local."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from parframe.graph import Operator
from parframe.rules.kinds import Pointwise
from parframe.rules.rule import DeviceOperator


def _part_of(target: str, *added: str) -> Callable[[Operator], Operator]:
    """Return a function to the model's operator, which lacks the arguments ``added``."""

    def original(operator: Operator) -> Operator:
        args = {slot: arg for slot, arg in operator.args.items() if slot not in added}
        return attrs.evolve(operator, target=target, args=args)

    return original


def _guarded(operator: Operator) -> Operator:
    return _part_of(str(operator.args["target"]), "target", "shape")(operator)


EMBEDDING = DeviceOperator(
    "parframe.embedding",
    _part_of("aten.embedding.default", "start"),
    "parframe.ops.embedding:embedding",
    kind=Pointwise(),
)
AMAX = DeviceOperator("parframe.amax", _part_of("aten.amax.default"), "parframe.ops.extremes:amax")
AMIN = DeviceOperator("parframe.amin", _part_of("aten.amin.default"), "parframe.ops.extremes:amin")
GUARDED = DeviceOperator("parframe.guarded", _guarded, "parframe.ops.guarded:guarded")
LOCAL_EXPERTS = DeviceOperator(
    "parframe.local_experts",
    _part_of("parframe.experts.default", "first", "column"),
    "parframe.ops.experts:LOCAL_EXPERTS",
)

WRITE_CACHE = DeviceOperator(
    "parframe.write_cache",
    lambda operator: attrs.evolve(
        operator, target="aten.alias.default", args={"self": operator.args["value"]}
    ),
    "parframe.ops.kv_cache:write_cache",
)

DEVICE_OPERATORS = (EMBEDDING, AMAX, AMIN, GUARDED, LOCAL_EXPERTS, WRITE_CACHE)
"""Every built-in one."""
