"""All checks of a plan, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from parframe.checking.checked_model import Whole
from parframe.checking.deadlock import check_deadlock
from parframe.checking.findings import DeviceMemory, Finding, Report, in_words
from parframe.checking.matching import check_matching
from parframe.checking.memory import all_device_memory, memory_sizes, traffic
from parframe.checking.plan_types import Followed, each_on_its_own
from parframe.checking.program_results import check_outputs, check_states
from parframe.checking.structure import check_structure
from parframe.checking.weight_coverage import check_weights
from parframe.plan import Plan
from parframe.rules import Rule


def check(
    plan: Plan,
    budget: int | None = None,
    dtype: str | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    rules: Iterable[Rule] = (),
) -> Report:
    """Prove a plan without a device.

    Parameters
    ----------
    plan
        The plan.
    budget
        The bytes that every device has; no limit if absent.
    dtype
        What floating-point tensors are held in when memory is counted; ``"bfloat16"`` if absent.
    batch, sequence
        The sizes that memory is counted for: one row for each share of the batch, and 1024
        positions if absent.
    rules
        Rules beside the built-in table, as in partitioning.

    Returns
    -------
    Report
        ``ok`` if nothing is wrong, else the ``findings``; memory of every rank and communication.
    """
    sizes = memory_sizes(plan, dtype, batch, sequence)
    findings = check_structure(plan)
    if findings:
        return Report(tuple(findings), {}, ())
    whole = Whole(plan.graph, plan.programs.values(), rules, plan.placing.mirrored)
    followed = Followed(plan, whole)
    meetings = [*check_matching(plan, followed.bindings), *check_deadlock(plan)]
    if followed.stuck and not meetings:
        followed = Followed(each_on_its_own(plan), whole)
    findings = _merged(
        [
            *followed.findings,
            *check_outputs(followed),
            *check_states(followed),
            *check_weights(followed),
            *meetings,
        ]
    )
    if not findings:
        findings.extend(_not_followed(followed))
    used = all_device_memory(plan, sizes)
    findings.extend(_over(used, budget))
    notes = (*(f"{note.kind}: {note.where}: {note.what}" for note in plan.notes), str(sizes))
    return Report(tuple(findings), used, traffic(plan, sizes), notes)


def _not_followed(followed: Followed) -> Iterator[Finding]:
    """What no pass has blamed, but none has understood either."""
    for name, walker in followed.walkers.items():
        if name in followed.stuck:
            message = "waits for a communication that never comes"
            yield Finding("matching", walker.ranks, "", "", message)
        unknown = [value for value, held in walker.values.items() if held is None]
        if unknown:
            message = f"{unknown[0]!r} could not be followed"
            yield Finding("type", walker.ranks, "", "", message)


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings with those of several ranks that say the same as one."""
    ranks: dict[Finding, set[int]] = {}
    for finding in findings:
        ranks.setdefault(attrs.evolve(finding, ranks=()), set()).update(finding.ranks)
    return [attrs.evolve(one, ranks=tuple(sorted(found))) for one, found in ranks.items()]


def _over(used: dict[int, DeviceMemory], budget: int | None) -> list[Finding]:
    """The devices that need more than there is."""
    if budget is None:
        return []
    ranks: dict[DeviceMemory, list[int]] = {}
    for rank, own in used.items():
        if own.total > budget:
            ranks.setdefault(own, []).append(rank)
    return [
        Finding(
            "memory", tuple(found), "", "",
            f"needs {own}, the budget is {in_words(budget)}",
        )
        for own, found in ranks.items()
    ]  # fmt: skip
