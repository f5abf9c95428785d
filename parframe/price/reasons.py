"""Why a composite is what it is, in words: what fits, what binds, what another loses."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.price.candidates import Candidate, Point
from parframe.price.choice import Choice, Ranked
from parframe.price.phases import Load, parts
from parframe.price.serving import Deployment
from parframe.price.traffic import decode_bytes
from parframe.price.use_cases import UseCase
from parframe.price.work import Attention, Experts, Product


@attrs.frozen
class Account:
    """Where the time of a step of decoding goes, and a device's memory.

    Parameters
    ----------
    seconds
        By what takes them: ``products``, ``experts``, ``attention``, ``pointwise``,
        ``exchanges``, on the slowest stage for one micro-batch.
    reading, computing
        Seconds that the memory's bandwidth, and the dense rate, would need at least.
    weights, cache
        Bytes of a device.
    room
        Bytes that software sees.
    binds
        ``memory``, ``bandwidth``, ``compute``, ``links`` or ``the engine``.
    """

    seconds: Mapping[str, float]
    reading: float
    computing: float
    weights: float
    cache: float
    room: float
    binds: str


def account(one: Candidate, at: Point, use: UseCase) -> Account:
    """Give an account of a candidate at a point."""
    deployment = one.deployment
    work, engine, room = deployment.work, deployment.engine, deployment.room
    micro = max(1, min(len(work.stages), int(at.rows / work.replicas)))
    context = use.prompt + use.output / 2
    load = Load(at.rows / micro, context)
    stage = max(
        work.stages,
        key=lambda stage: parts(stage, deployment.clock, load, work.replicas).total(engine).value,
    )
    found = parts(stage, deployment.clock, load, work.replicas)
    factors = {
        "products": engine.products,
        "experts": engine.products * engine.experts,
        "attention": engine.attention,
        "pointwise": 1.0,
        "exchanges": engine.exchanges,
    }
    seconds = {name: getattr(found, name).value * factor for name, factor in factors.items()}
    seconds["attention"] += found.again.value * engine.attention * engine.regrouping
    cluster = deployment.clock.cluster  # type: ignore[attr-defined]
    device = cluster.machine.device
    reading = decode_bytes(deployment, load.decoding, context) / device.bandwidth
    rate = max(device.rates.values())
    computing = _operations(deployment, load, context) / rate
    fullest = max(work.stages, key=lambda stage: room.weights(stage.held))
    cache = at.rows * room.row(fullest.held, use.prompt + use.output)
    weights = room.weights(fullest.held)
    times = [
        parts(each, deployment.clock, load, work.replicas).total(engine).value
        for each in work.stages
    ]
    busy = max(sum(times), micro * max(times))
    step = deployment.step(Load(at.rows, context)).value
    full = at.rows >= 0.95 * one.most and one.limit == "memory"
    binds = _binds(seconds, reading, computing, step > 2 * busy, full)
    return Account(seconds, reading, computing, weights, cache, room.memory, binds)


def _operations(deployment: Deployment, load: Load, context: float) -> float:
    """Operations of the busiest stage's device in a step of decoding."""
    most = 0.0
    for stage in deployment.work.stages:
        total = 0.0
        for kernel in stage.kernels:
            tokens = load.decoding * kernel.share
            if isinstance(kernel, Product):
                total += 2 * tokens * kernel.inner * kernel.columns * kernel.count
            elif isinstance(kernel, Experts):
                visited = tokens * kernel.chosen * kernel.held / kernel.experts
                total += 2 * visited * kernel.matrices * kernel.hidden * kernel.ffn * kernel.count
            elif isinstance(kernel, Attention):
                width = kernel.key_width + kernel.value_width
                seen = context * kernel.keys
                total += 2 * tokens * kernel.heads * width * seen * kernel.count
        most = max(most, total)
    return most


def _binds(
    seconds: Mapping[str, float], reading: float, computing: float, hosted: bool, full: bool
) -> str:
    if full:
        return "memory"
    if hosted:
        return "the engine"
    if seconds["exchanges"] > sum(seconds.values()) / 2:
        return "links"
    return "compute" if computing > reading else "bandwidth"


def reason(one: Ranked, use: UseCase) -> str:
    """Say what fits and what binds."""
    found = account(one.candidate, one.point, use)
    longest = max(found.seconds, key=lambda name: found.seconds[name])
    total = sum(found.seconds.values()) or 1.0
    requests = "1 request" if one.point.rows == 1 else f"{one.point.rows:.0f} requests"
    fits = (
        f"weights take {found.weights / 1e9:.1f} of {found.room / 1e9:.1f} GB, the cache of "
        f"{requests} {found.cache / 1e9:.1f}; at most {one.candidate.most:.0f} fit "
        f"({one.candidate.limit})"
    )
    time = (
        f"{found.binds} binds: of a stage's step {longest} take "
        f"{found.seconds[longest] / total:.0%}"
    )
    if longest != "exchanges":
        time += f", exchanges {found.seconds['exchanges'] / total:.0%}"
    return f"{fits}; {time}"


def loss(best: Ranked, other: Ranked, use: UseCase) -> str:
    """Say what another loses against the best."""
    if other.broken:
        return f"breaks a limit: {'; '.join(other.broken)}"
    mine, theirs = best.point, other.point
    said = []
    if theirs.rate.value < mine.rate.value:
        said.append(f"{1 - theirs.rate.value / mine.rate.value:.0%} fewer tokens a second")
    if theirs.token.value > mine.token.value:
        said.append(f"a token takes {theirs.token.value / mine.token.value:.2f} times as long")
    if theirs.first.value > mine.first.value:
        said.append(f"the first {theirs.first.value / mine.first.value:.2f} times")
    ours, its = (account(x.candidate, x.point, use) for x in (best, other))
    per_row = {
        name: its.seconds[name] / theirs.rows - ours.seconds[name] / mine.rows
        for name in ours.seconds
    }
    worst = max(per_row, key=lambda name: per_row[name])
    if per_row[worst] > 0:
        said.append(f"most of it by {worst}")
    return ", ".join(said) or "nothing"


def explain(choice: Choice, composite: str) -> str:
    """Say of one composite why it is where it is.

    Returns
    -------
    str
        Its reason and what it loses, or why it is excluded; empty if it is not among them.
    """
    if composite in choice.excluded:
        return f"excluded: {choice.excluded[composite]}"
    for place, one in enumerate(choice.ranked, 1):
        if one.composite == composite:
            best = choice.ranked[0]
            told = f"place {place} of {len(choice.ranked)}: {reason(one, choice.use)}"
            return (
                told
                if one is best
                else f"{told}; against {best.composite}: " + loss(best, one, choice.use)
            )
    return ""
