"""What programs return and keep: outputs and caches against the model's."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.checking.collective_types import Ranges, covers
from parframe.checking.concrete_types import Concrete, concrete
from parframe.checking.findings import Finding
from parframe.checking.plan_types import Followed
from parframe.checking.program_types import Walker
from parframe.checking.shard_regions import fit, place_of
from parframe.checking.tensor_types import Held
from parframe.graph import Operator
from parframe.plan import Part


def check_outputs(followed: Followed) -> list[Finding]:
    """Outputs that are missing, incomplete, or not what they are returned as."""
    findings: list[Finding] = []
    parts: dict[str, dict[Ranges, None]] = {}
    like: dict[str, Concrete] = {}
    unknown: set[str] = set()
    for walker in followed.walkers.values():
        for part in walker.program.outputs:
            held = walker.values.get(part.name)
            if held is None:
                unknown.add(part.whole)
                continue
            faults = list(_output(followed, walker, part, held))
            findings.extend(faults)
            if faults:
                unknown.add(part.whole)
                continue
            fitted = fit(held.place, followed.whole.outer[part.whole]) or held.place
            for rank in walker.ranks:
                own = concrete(attrs.evolve(held, place=fitted), followed.bindings[rank])
                parts.setdefault(part.whole, {})[own.ranges] = None
                like[part.whole] = own
    for name in dict.fromkeys(followed.whole.graph.output_names):
        if name not in parts:
            if name not in unknown:
                findings.append(Finding("output", (), "", "", f"no device returns {name!r}"))
            continue
        fault = covers(like[name], list(parts[name]), tuple(followed.symbols.items()))
        if fault:
            findings.append(Finding("output", (), "", "", f"{name!r}: {fault}"))
    return findings


def _output(followed: Followed, walker: Walker, part: Part, held: Held) -> Iterator[Finding]:
    if held.pending:
        labels = ", ".join(term.label for term in held.pending)
        yield Finding(
            "partial", walker.ranks, "", "", f"{part.whole!r} is returned, but {labels} is still "
            "to be reduced",
        )  # fmt: skip
    axes = followed.whole.outer.get(part.whole, ())
    if held.total != followed.whole.terms.get(part.whole) or fit(held.place, axes) is None:
        yield Finding(
            "output", walker.ranks, "", "", f"{held.label!r} is returned as {part.whole!r}"
        )
        return
    where = place_of(held.place.axes, part)
    if where is None:
        yield Finding(
            "output", walker.ranks, "", "", f"the region of {part.name!r} is no part of it"
        )
    elif where is not held.place:
        claimed = attrs.evolve(held, place=where)
        wrong = tuple(
            rank
            for rank in walker.ranks
            if concrete(claimed, followed.bindings[rank]).ranges
            != concrete(held, followed.bindings[rank]).ranges
        )
        if wrong:
            yield Finding("output", wrong, "", "", f"another part of {part.whole!r} is returned")


def check_states(followed: Followed) -> list[Finding]:
    """Caches that are missing or keep the wrong value."""
    return [finding for walker in followed.walkers.values() for finding in _states(walker)]


def _states(walker: Walker) -> Iterator[Finding]:
    kept = {state.name: state.value for state in walker.program.states}
    if len(kept) < len(walker.program.states):
        yield Finding("state", walker.ranks, "", "", "two caches have one name")
    expected = {cache.name: cache for cache in _caches(walker)}
    readings = _readings(walker)
    for name, cache in expected.items():
        if name not in kept:
            yield _blamed(walker, cache, f"has no cache {name!r}")
            continue
        read = readings.get(cache.term, [])
        used = [value for value in read if value in cache.operator.inputs] or read
        mine = walker.values.get(kept[name])
        if mine is None or kept[name] in used:
            continue
        places = [held.place for value in used if (held := walker.values.get(value)) is not None]
        if mine.total != cache.term or mine.pending or mine.place not in (places or [mine.place]):
            told = f"the cache {name!r} keeps {kept[name]!r}, but {' or '.join(used)} is used"
            yield _blamed(walker, cache, told)
    for name in sorted(set(kept) - set(expected)):
        yield Finding("state", walker.ranks, "", "", f"the cache {name!r} is of no operator here")


@attrs.frozen
class _Cache:
    """A cache that a program must have: its name, its contents, the operator it is of."""

    name: str
    term: int
    operator: Operator
    module: str


def _caches(walker: Walker) -> Iterator[_Cache]:
    for operator, origin in zip(walker.program.operators, walker.origins, strict=True):
        for state in origin.block.states if origin is not None else ():
            if origin is not None and state.name.rpartition(".")[0] == origin.operator.name:
                name = f"{origin.call.name}/{state.name}" if origin.call.name else state.name
                term = walker.whole.terms[origin.names[state.value]]
                yield _Cache(name, term, operator, origin.module)


def _readings(walker: Walker) -> dict[int, list[str]]:
    """The values that operators take, by the number that stands for their terms."""
    found: dict[int, list[str]] = {}
    values = dict.fromkeys(value for op in walker.program.operators for value in op.inputs)
    for value in values:
        held = walker.values.get(value)
        if held is not None:
            found.setdefault(held.total, []).append(value)
    return found


def _blamed(walker: Walker, cache: _Cache, what: str) -> Finding:
    return Finding("state", walker.ranks, cache.operator.name, cache.module, what)
