"""The operators that only plans have: communication between ranks, and the local slice.

They are ordinary operators of a device's program:

============================  ======================================================================
``parframe.all_reduce``       ``input, axes, reduction, tag``
``parframe.all_gather``       ``input, axes, parts, tag``; ``parts[r]`` is the region of the result
                              that comes from rank ``r`` of the group: a region for every dim
``parframe.reduce_scatter``   ``input, axes, reduction, parts, tag``; rank ``r`` keeps ``parts[r]``
                              of the reduced tensor
``parframe.all_to_all``       ``input, axes, sends, parts, tag``; ``sends[r]`` of the input goes to
                              rank ``r``, and what comes from ``r`` is ``parts[r]`` of the result
``parframe.broadcast``        ``input, axes, root, tag``; only the rank ``root`` has ``input``
``parframe.send``, ``recv``   ``input, axes, peer, tag``; ``axes, peer, tag``: the rank ``peer``
``parframe.shard``            ``input, part``: slices a region for every dim; no communication
============================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from parframe.rules.kinds import POINTWISE, Kind, View


@attrs.frozen
class PlanOperator:
    """An operator that only plans have.

    ``arguments`` are those that it must have, in order, and ``optional`` those that only some ranks
    have; ``results`` are the numbers of results that it may have. The pattern is ``collective``
    (every rank of a group enters it), ``point_to_point`` (a send, or the recv that matches it) or
    ``local`` (no communication). ``sized_by`` is the tensor whose bytes are counted as
    communicated. ``stages`` is true if it carries values between pipeline stages, and not within
    one. ``kind`` is that apart from communication.
    """

    name: str
    arguments: tuple[str, ...]
    pattern: Literal["collective", "point_to_point", "local"]
    optional: tuple[str, ...] = ()
    results: tuple[int, ...] = (1,)
    sized_by: Literal["input", "output"] = "input"
    stages: bool = False
    kind: Kind = POINTWISE

    @property
    def target(self) -> str:
        """Target of the operator in programs."""
        return f"parframe.{self.name}"


def _arguments(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ALL_REDUCE = PlanOperator("all_reduce", _arguments("input axes reduction tag"), "collective")
ALL_GATHER = PlanOperator(
    "all_gather", _arguments("input axes parts tag"), "collective", sized_by="output"
)
REDUCE_SCATTER = PlanOperator(
    "reduce_scatter", _arguments("input axes reduction parts tag"), "collective"
)
ALL_TO_ALL = PlanOperator("all_to_all", _arguments("input axes sends parts tag"), "collective")
BROADCAST = PlanOperator(
    "broadcast", _arguments("axes root tag"), "collective", optional=("input",), results=(0, 1),
    stages=True,
)  # fmt: skip
SEND = PlanOperator(
    "send", _arguments("input axes peer tag"), "point_to_point", results=(0,), stages=True
)
RECV = PlanOperator("recv", _arguments("axes peer tag"), "point_to_point", stages=True)
SHARD = PlanOperator("shard", _arguments("input part"), "local", kind=View(copies=True))

PLAN_OPERATORS: Mapping[str, PlanOperator] = {
    operator.target: operator
    for operator in (
        ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL, BROADCAST, SEND, RECV, SHARD,
    )
}  # fmt: skip
"""The operators that only plans have, by target."""

COMMUNICATION_OPERATORS: Mapping[str, PlanOperator] = {
    target: operator for target, operator in PLAN_OPERATORS.items() if operator.pattern != "local"
}
"""The operators that communicate and compute nothing of the model, by target."""

POINT_TO_POINT = frozenset(
    target for target, operator in PLAN_OPERATORS.items() if operator.pattern == "point_to_point"
)
"""The targets of the operators between two ranks."""


def plan_operator(name: str) -> PlanOperator:
    """Return the operator of a name such as ``"all_reduce"``."""
    return PLAN_OPERATORS[f"parframe.{name}"]


def short_name(target: str) -> str:
    """Return the name of a communication operator or distributed form in reports."""
    return target.removeprefix("parframe.")
