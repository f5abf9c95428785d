"""Weights: every element that a stage uses is there, in bounds, and none that nothing uses."""

from __future__ import annotations

from collections.abc import Iterator

from parframe.checking.collective_types import Ranges, covers
from parframe.checking.concrete_types import Concrete, concrete
from parframe.checking.findings import Finding
from parframe.checking.plan_types import Followed
from parframe.checking.program_types import Walker
from parframe.checking.samples import numbers
from parframe.checking.tensor_types import Held, sizes_of
from parframe.plan import Part


def check_weights(followed: Followed) -> list[Finding]:
    """What is wrong with the parts of weights and inputs that devices are given."""
    findings: list[Finding] = []
    stages: dict[tuple[int, str], dict[Ranges, None]] = {}
    like: dict[tuple[int, str], Concrete] = {}
    for walker in followed.walkers.values():
        used = {value for operator in walker.program.operators for value in operator.inputs}
        used |= {part.name for part in walker.program.outputs}
        for part in walker.program.parameters:
            if part.name not in used:
                findings.append(
                    Finding("weights", walker.ranks, "", "", f"{part.name!r} is held without use")
                )
        for part in (*walker.program.inputs, *walker.program.parameters):
            held = walker.values.get(part.name)
            if held is None:
                continue
            findings.extend(_bounds(followed, walker, part, held))
            if part.whole in followed.whole.graph.parameters:
                key = (walker.program.stage, part.whole)
                for rank in walker.ranks:
                    own = concrete(held, followed.bindings[rank])
                    stages.setdefault(key, {})[own.ranges] = None
                    like[key] = own
    symbols = tuple(followed.symbols.items())
    known: dict[object, str] = {}
    for (stage, name), parts in stages.items():
        fitting = (like[stage, name].axes, tuple(parts))
        if fitting not in known:
            known[fitting] = covers(like[stage, name], list(parts), symbols)
        if known[fitting]:
            findings.append(
                Finding("weights", (), "", "", f"{name!r} in stage {stage}: {known[fitting]}")
            )
    return findings


def _bounds(followed: Followed, walker: Walker, part: Part, held: Held) -> Iterator[Finding]:
    """Ranges that leave the tensor."""
    seen: dict[object, bool] = {}
    wrong = []
    for rank in walker.ranks:
        bindings = followed.bindings[rank]
        own = concrete(held, bindings)
        if own.ranges not in seen:
            seen[own.ranges] = all(
                0 <= low <= high <= size
                for axis, ranges in zip(own.axes, own.ranges, strict=True)
                for dim, (start, stop) in ranges
                for low, high, size in zip(
                    start, stop, numbers(sizes_of(axis)[dim], bindings), strict=True
                )
            )
        if not seen[own.ranges]:
            wrong.append(rank)
    if wrong:
        yield Finding(
            "weights", tuple(wrong), "", "", f"the region of {part.name!r} leaves {part.whole!r}"
        )
