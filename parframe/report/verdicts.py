"""Verdicts on a plan: of its checks, and of its verification by execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import RenderableType

from parframe.checking import MemorySizes, Report
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.report.formatting import counted
from parframe.report.model import output_labels
from parframe.report.screen import heading, lines

if TYPE_CHECKING:
    from parframe.simulation import Proof

_MOST = 8


def check_facts(report: Report, sizes: MemorySizes) -> dict[str, Any]:
    """Return the findings of the checks, and the sizes that bytes are computed for."""
    return {
        "ok": report.ok,
        "findings": [
            {**attrs.asdict(finding), "text": str(finding)} for finding in report.findings
        ],
        "sizes": dict(sorted(sizes.values.items())),
        "dtype": sizes.dtype,
    }


def draw_check(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the verdict of the checks and the first findings."""
    if facts["ok"]:
        yield heading("Check", "passed")
    else:
        yield heading("Check", f"failed: {counted(len(facts['findings']), 'finding')}")
        yield lines(finding["text"] for finding in facts["findings"][:_MOST])
        if len(facts["findings"]) > _MOST:
            yield lines([f"and {len(facts['findings']) - _MOST} more; --json lists them"])
    sizes = ", ".join(f"{name} {size}" for name, size in facts["sizes"].items())
    yield lines([f"bytes are for {sizes or 'the shapes of the graph'}, in {facts['dtype']}"])


def proof_facts(proof: Proof, graph: OperatorGraph, weights: str) -> dict[str, Any]:
    """Return the result of the verification; ``weights`` describes the weights it used."""
    labels = output_labels(graph)
    return {
        "executed": True,
        "ok": proof.ok,
        "weights": weights,
        "dtype": proof.dtype,
        "max_error": proof.max_error,
        "bound": proof.bound,
        "first_difference": attrs.asdict(proof.first_difference)
        if proof.first_difference
        else None,
        "outputs": [
            {**attrs.asdict(output), "name": labels[output.name]} for output in proof.outputs
        ],
    }


def unverified_facts(reason: str) -> dict[str, Any]:
    """Return the facts of a verification that was not run."""
    return {"executed": False, "reason": reason}


def draw_proof(facts: Mapping[str, Any], devices: int) -> Iterator[RenderableType]:
    """Yield the verdict of the verification, and the first operator that differs."""
    if not facts["executed"]:
        yield heading("Verify", f"not verified by execution ({facts['reason']})")
        return
    verdict = "equal to the unpartitioned model" if facts["ok"] else "NOT equal to the model"
    yield heading("Verify", f"{counted(devices, 'device')} executed, {verdict}")
    yield lines(_trials(facts))
    difference = facts["first_difference"]
    if difference:
        ranks = ", ".join(map(str, difference["ranks"][:8]))
        yield lines(
            [
                f"first difference: {difference['operator']} ({difference['module']})",
                f"  on ranks {ranks}, off by {difference['error']:.3g} relative to the "
                "largest value",
                f"  {difference['source']}",
            ]
        )


def draw_run(facts: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """Yield the text that real processes generated from the spec's prompts."""
    if facts is None:
        return
    yield heading(
        "Run",
        f"{counted(facts['processes'], 'rank')}, executor {facts['executor']}: "
        f"{counted(facts['tokens'], 'token')} in {facts['seconds']:.1f} s",
    )
    for completion in facts["completions"]:
        yield lines([f"{completion['prompt']!r}", f"  {completion['continuation']!r}"])


def _trials(facts: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"largest difference {facts['max_error']:.2g} relative to the largest value, "
        f"allowed {facts['bound']:.0g}"
    )
    yield f"{facts['dtype']}, weights {facts['weights']}"
    for output in facts["outputs"]:
        shape = " x ".join(map(str, output["shape"])) or "one number"
        yield f"{output['name']} ({shape}): {counted(output['parts'], 'part')} compared"


def check_error(report: Report, where: str) -> ParframeError | None:
    """Return the error of a plan that failed its checks, of kind ``memory`` if that is all."""
    if report.ok:
        return None
    kinds = {finding.kind for finding in report.findings}
    number = len(report.findings)
    first = str(report.findings[0]).partition("] ")[2]
    what = first + (f", and {counted(number - 1, 'more finding')}" if number > 1 else "")
    if kinds == {"memory"}:
        return ParframeError(
            "memory",
            where,
            what,
            "use more devices, a smaller batch or sequence, a smaller dtype, or a larger budget",
        )
    return ParframeError(
        "check", where, what, "report it with the spec: a plan that parframe made must pass"
    )


def proof_error(proof: Proof, where: str) -> ParframeError | None:
    """Return the error of a plan whose results differ from the model's."""
    if proof.ok:
        return None
    difference = proof.first_difference
    place = f", first at {difference.operator} ({difference.module})" if difference else ""
    return ParframeError(
        "verify",
        where,
        f"relative error {proof.max_error:.3g}, allowed {proof.bound:.0g}{place}",
        "report it with the spec: it is a bug in parframe or in the rule of a plugin",
    )
