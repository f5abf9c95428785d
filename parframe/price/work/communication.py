"""Communication of a device: collectives, distributed forms, and sends between stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from parframe.graph import Operator
from parframe.plan import group_axes
from parframe.price.work.kernel_list import KernelList, merge_equal
from parframe.price.work.operator_list import at
from parframe.price.work.work import Communication, Per
from parframe.rules import PricedCollective
from parframe.rules.communication import COMMUNICATION_OPERATORS, plan_operator
from parframe.rules.table import DISTRIBUTED_FORMS


def list_communication(kernels: KernelList) -> tuple[Communication, ...]:
    """List the communication of a device, equal operators once with their count."""
    found: list[Communication] = []
    for number, kind in enumerate(kernels.kinds):
        operator = kernels.operators[number]
        if kind == "communication":
            found.extend(_collective(kernels, number, operator))
        elif operator.target in DISTRIBUTED_FORMS:
            found.extend(_distributed(kernels, number, operator))
    for value, what, ranks in kernels.listing.sends:
        extent = kernels.listing.scaling(value)
        per: Per = "sequence" if extent.grows_with == "rows" else "token"
        found.append(Communication(what, float(extent.width), ranks, extent.share, per))
    return tuple(merge_equal(found))


def _collective(kernels: KernelList, number: int, operator: Operator) -> Iterator[Communication]:
    kind = COMMUNICATION_OPERATORS[operator.target]
    if kind.stages:
        return  # between stages: in the sends of the operator list
    name = operator.outputs[0] if kind.sized_by == "output" else operator.inputs[0]
    extent = kernels.listing.scaling(name)
    ranks = kernels.listing.group(group_axes(operator))
    count, per = kernels.counts[number], kernels.per(number)
    yield Communication(kind.name, float(extent.width), ranks, extent.share, per, count)


def _distributed(kernels: KernelList, number: int, operator: Operator) -> Iterator[Communication]:
    """Yield the collectives that a distributed form is priced as."""
    listing = kernels.listing
    ranks = listing.group(group_axes(operator))
    extents = {slot: listing.scaling(at(operator, slot)) for slot in operator.slots}
    widths = {slot: float(extent.width) for slot, extent in extents.items()}
    for transfer in _priced_as(operator, widths, len(ranks)):
        extent = extents[transfer.slot]
        gathered = plan_operator(transfer.kind).sized_by == "output"
        share = min(1.0, extent.share * len(ranks)) if gathered else extent.share
        count = transfer.count * kernels.counts[number]
        elements = float(extent.width * transfer.factor)
        yield Communication(transfer.kind, elements, ranks, share, "token", count)


def _priced_as(
    operator: Operator, widths: Mapping[str, float], ranks: int
) -> tuple[PricedCollective, ...]:
    """Return what a distributed form is priced as: a gather of all that travels by default."""
    form = DISTRIBUTED_FORMS[operator.target]
    if form.priced_as is not None:
        return form.priced_as(widths, ranks)
    travels = operator.args["travels"]
    slots = travels if isinstance(travels, tuple) else ()
    return tuple(PricedCollective("all_gather", str(slot)) for slot in slots)
