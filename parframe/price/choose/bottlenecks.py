"""Why a composite is what it is, in words: what fits, what binds, what another loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from parframe.price.choose.candidates import Candidate, Point
from parframe.price.choose.ranking import Choice, Ranked
from parframe.price.choose.use_cases import UseCase
from parframe.price.serving.memory_traffic import decode_bytes
from parframe.price.serving.steady_state import Deployment, mixture
from parframe.price.serving.step_time import Load, parts
from parframe.price.work.work import Attention, Experts, Product, Stage


@attrs.frozen
class Account:
    """Where the time of a step goes, prompts that are read in it included, and a device's memory.

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
    """Give an account of a candidate at a point, over the steps that it makes there."""
    deployment = one.deployment
    work, room = deployment.work, deployment.room
    micro = max(1, min(len(work.stages), int(at.rows / work.replicas)))
    kinds = mixture(deployment, at.rows, use.prompt, use.output)
    shares = [(share, load.part(1 / micro)) for share, load in kinds]
    every = [_mean(stage, deployment, shares) for stage in work.stages]
    totals = [sum(seconds.values()) for seconds in every]
    seconds = every[totals.index(max(totals))]
    device = deployment.clock.cluster.machine.device  # type: ignore[attr-defined]
    dtypes = deployment.clock.dtypes  # type: ignore[attr-defined]
    reading = sum(share * _read(deployment, load) for share, load in shares) / device.bandwidth
    computing = sum(share * _operations(deployment, load) for share, load in shares)
    computing /= device.rates[dtypes.products(device.rates)]
    fullest = max(work.stages, key=lambda stage: room.weights(stage.footprint))
    cache = (
        at.rows
        * fullest.footprint.batch_share
        * room.row(fullest.footprint, use.prompt + use.output)
    )
    weights = room.weights(fullest.footprint)
    busy = max(sum(totals), micro * max(totals))
    step = sum(share * deployment.step(load).value for share, load in kinds)
    full = at.rows >= 0.95 * one.most and one.limit == "memory"
    binds = _binds(seconds, reading, computing, step > 2 * busy, full)
    return Account(seconds, reading, computing, weights, cache, room.memory, binds)


def _mean(
    stage: Stage, deployment: Deployment, shares: Sequence[tuple[float, Load]]
) -> dict[str, float]:
    """Seconds of a stage in the mean over steps, by what takes them."""
    engine = deployment.engine
    factors = {
        "products": engine.products,
        "experts": engine.products * engine.experts,
        "attention": engine.attention,
        "pointwise": 1.0,
        "exchanges": engine.exchanges,
    }
    seconds = dict.fromkeys(factors, 0.0)
    for share, load in shares:
        found = parts(stage, deployment.clock, load, deployment.work.replicas)
        for name, factor in factors.items():
            seconds[name] += share * getattr(found, name).value * factor
        again = found.again.value * engine.attention * engine.regrouping
        seconds["attention"] += share * again
    return seconds


def _read(deployment: Deployment, load: Load) -> float:
    prompts = load.tokens - load.decoding
    return decode_bytes(deployment, load.decoding, load.context, prompts)


def _operations(deployment: Deployment, load: Load) -> float:
    """Operations of the busiest stage's device in a step."""
    most = 0.0
    prompts = load.prompts * load.prompt
    looked = load.decoding * load.context + prompts * load.prompt / 2
    for stage in deployment.work.stages:
        total = 0.0
        for kernel in stage.kernels:
            tokens = load.tokens * kernel.share
            if isinstance(kernel, Product):
                own = tokens if kernel.per == "token" else load.rows * kernel.share
                total += 2 * own * kernel.inner * kernel.columns * kernel.count
            elif isinstance(kernel, Experts):
                visited = tokens * kernel.top_k * kernel.local_experts / kernel.experts
                total += 2 * visited * kernel.matrices * kernel.hidden * kernel.ffn * kernel.count
            elif isinstance(kernel, Attention):
                width = kernel.heads * (kernel.key_width + kernel.value_width)
                total += 2 * looked * kernel.share * kernel.position_share * width * kernel.count
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
