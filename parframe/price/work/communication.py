"""What a device communicates: collectives, experts' tokens, and sends between stages."""

from __future__ import annotations

from collections.abc import Iterator

from parframe.graph import Operator
from parframe.plan import group_axes
from parframe.price.work.kernel_list import KernelList, merge_equal
from parframe.price.work.operator_list import at
from parframe.price.work.work import Communication, Per


def list_communication(kernels: KernelList) -> tuple[Communication, ...]:
    """What is communicated, equal exchanges once with their count."""
    found: list[Communication] = []
    for number, kind in enumerate(kernels.kinds):
        operator = kernels.operators[number]
        if kind == "exchange":
            found.extend(_exchange(kernels, number, operator))
        elif operator.target == "parframe.expert_dispatch":
            found.extend(_routed(kernels, number, operator))
        elif operator.target == "parframe.ring_attention":
            found.extend(_passed(kernels, number, operator))
    for value, what, members in kernels.measured.listing.sent:
        extent = kernels.measured.extent(value)
        per: Per = "sequence" if extent.bears == "rows" else "token"
        found.append(Communication(what, float(extent.width), members, extent.share, per))
    return tuple(merge_equal(found))


def _exchange(kernels: KernelList, number: int, operator: Operator) -> Iterator[Communication]:
    kind = operator.target.removeprefix("parframe.")
    if kind in ("send", "recv", "broadcast"):
        return  # between stages: told by the listing
    name = operator.outputs[0] if kind == "all_gather" else operator.inputs[0]
    extent = kernels.measured.extent(name)
    members = kernels.measured.listing.members(group_axes(operator))
    count = kernels.counts[number]
    yield Communication(
        kind, float(extent.width), members, extent.share, kernels.per(number), count
    )


def _routed(kernels: KernelList, number: int, operator: Operator) -> Iterator[Communication]:
    """Tokens to the devices of their experts, once to each, and results back.

    The choices are taken as independent, so that a device of ``m`` is among those of a token
    with ``c`` choices with the chance ``1 - (1 - 1/m)^c``.
    """
    measured = kernels.measured
    extent = measured.extent(at(operator, "hidden"))
    chosen = measured.extent(at(operator, "ids")).width
    members = measured.listing.members(group_axes(operator))
    reached = (len(members) - 1) * (1 - (1 - 1 / len(members)) ** chosen)
    count = 2 * kernels.counts[number]
    elements = extent.width * reached
    yield Communication("all_to_all", elements, members, extent.share, "token", count)


def _passed(kernels: KernelList, number: int, operator: Operator) -> Iterator[Communication]:
    """Keys and values that pass round: every device meets all, as after a gather."""
    measured = kernels.measured
    members = measured.listing.members(group_axes(operator))
    for slot in ("key", "value"):
        extent = measured.extent(at(operator, slot))
        share = min(1.0, extent.share * len(members))
        count = kernels.counts[number]
        yield Communication("all_gather", float(extent.width), members, share, "token", count)
