"""All checks of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from parframe import hooks
from parframe.byte_amounts import format_bytes
from parframe.checking.checked_model import CheckedModel
from parframe.checking.communication_traffic import plan_traffic
from parframe.checking.deadlock import check_deadlock
from parframe.checking.findings import DeviceMemory, Finding, Report
from parframe.checking.matching import check_matching
from parframe.checking.memory import all_device_memory, memory_sizes
from parframe.checking.plan_types import PlanTypes, with_program_per_rank
from parframe.checking.program_results import check_outputs, check_states, check_weights
from parframe.checking.structure import check_structure
from parframe.plan import Plan
from parframe.rules import Rule


def check(
    plan: Plan,
    budget: int | None = None,
    dtype: str | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    rules: Iterable[Rule] | None = None,
) -> Report:
    """Check a plan without a device.

    Parameters
    ----------
    plan
        The plan.
    budget
        Memory of every device, in bytes; no limit if absent.
    dtype
        Dtype of floating-point tensors when memory is counted (default: ``"bfloat16"``).
    batch, sequence
        Sizes that memory is counted for (default: one row for each share of the batch, and 1024
        positions).
    rules
        Rules in addition to the built-in table, as in partitioning; if absent, those of the
        plugins that the plan names.

    Returns
    -------
    Report
        ``ok`` if the plan is right, else the ``findings``; memory of every rank and communication.
    """
    sizes = memory_sizes(plan, dtype, batch, sequence)
    findings = check_structure(plan)
    if findings:
        return Report(tuple(findings), {}, ())
    rules = hooks.rules((), plan.plugins) if rules is None else rules
    model = CheckedModel(plan.graph, plan.programs.values(), rules, plan.placing.zigzag)
    plan_types = PlanTypes(plan, model)
    communication_findings = [*check_matching(plan, plan_types.bindings), *check_deadlock(plan)]
    if plan_types.blocked and not communication_findings:
        plan_types = PlanTypes(with_program_per_rank(plan), model)
    findings = _merge_ranks(
        [
            *plan_types.findings,
            *check_outputs(plan_types),
            *check_states(plan_types),
            *check_weights(plan_types),
            *communication_findings,
        ]
    )
    if not findings:
        findings.extend(_unknown_types(plan_types))
    used = all_device_memory(plan, sizes)
    findings.extend(_memory_findings(used, budget))
    notes = (*(f"{note.kind}: {note.where}: {note.what}" for note in plan.notes), str(sizes))
    return Report(tuple(findings), used, plan_traffic(plan, sizes), notes)


def _unknown_types(plan_types: PlanTypes) -> Iterator[Finding]:
    """Yield findings for values that no check has blamed, but whose types are unknown."""
    for name, types in plan_types.programs.items():
        if name in plan_types.blocked:
            message = "waits for a communication that other ranks never enter"
            yield Finding("matching", types.ranks, message)
        unknown = [value for value, tensor_type in types.values.items() if tensor_type is None]
        if unknown:
            message = f"{unknown[0]!r} has an unknown type"
            yield Finding("type", types.ranks, message)


def _merge_ranks(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with equal ones of several ranks merged into one."""
    ranks: dict[Finding, set[int]] = {}
    for finding in findings:
        ranks.setdefault(attrs.evolve(finding, ranks=()), set()).update(finding.ranks)
    return [attrs.evolve(one, ranks=tuple(sorted(found))) for one, found in ranks.items()]


def _memory_findings(used: dict[int, DeviceMemory], budget: int | None) -> list[Finding]:
    """Return findings for the devices that need more memory than the budget."""
    if budget is None:
        return []
    ranks: dict[DeviceMemory, list[int]] = {}
    for rank, memory in used.items():
        if memory.total > budget:
            ranks.setdefault(memory, []).append(rank)
    return [
        Finding("memory", tuple(found), f"needs {memory}, the budget is {format_bytes(budget)}")
        for memory, found in ranks.items()
    ]
