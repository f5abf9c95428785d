"""Explanations of a choice in words: what fits, what bounds a composite, what another one loses."""

from __future__ import annotations

from parframe.price.choose.bottlenecks import break_down
from parframe.price.choose.ranking import Choice, RankedComposite
from parframe.price.choose.use_cases import UseCase
from parframe.report.formatting import counted, gib


def explain_bottleneck(ranked: RankedComposite, use: UseCase) -> str:
    """Return how a composite uses the memory of a device, and what bounds it."""
    breakdown = break_down(ranked.candidate, ranked.point, use)
    total = sum(breakdown.seconds.values()) or 1.0
    longest = max(breakdown.seconds, key=lambda name: breakdown.seconds[name])
    shares = {name: breakdown.seconds[name] / total for name in (longest, "communication")}
    shares["other"] = 1 - sum(shares.values())
    time = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    requests = counted(round(ranked.point.concurrency), "request")
    return (
        f"weights {gib(breakdown.weights)} and KV cache of {requests} {gib(breakdown.kv_cache)}, "
        f"of {gib(breakdown.memory)} per device; "
        f"max concurrency {ranked.candidate.max_concurrency:,.0f} (limited by "
        f"{ranked.candidate.limited_by}); bound by {breakdown.bound_by}; "
        f"time of a step: {time}"
    )


def explain_loss(best: RankedComposite, other: RankedComposite, use: UseCase) -> str:
    """Return what another composite loses compared with the best."""
    if other.violations:
        return f"violates limits: {'; '.join(other.violations)}"
    ours, theirs = best.point, other.point
    losses = []
    if theirs.output_rate.value < ours.output_rate.value:
        share = 1 - theirs.output_rate.value / ours.output_rate.value
        losses.append(f"{share:.0%} less output tok/s")
    if theirs.tpot.value > ours.tpot.value:
        losses.append(f"{theirs.tpot.value / ours.tpot.value:.2f} times the TPOT")
    if theirs.ttft.value > ours.ttft.value:
        losses.append(f"{theirs.ttft.value / ours.ttft.value:.2f} times the TTFT")
    our_seconds, their_seconds = (
        break_down(ranked.candidate, ranked.point, use).seconds for ranked in (best, other)
    )
    per_request = {
        name: their_seconds[name] / theirs.concurrency - our_seconds[name] / ours.concurrency
        for name in our_seconds
    }
    largest = max(per_request, key=lambda name: per_request[name])
    if per_request[largest] > 0:
        losses.append(f"mainly because of {largest}")
    return ", ".join(losses) or "no difference"


def explain_composite(choice: Choice, composite: str) -> str:
    """Return why a composite has its rank or is excluded; empty for an unknown one."""
    if composite in choice.excluded:
        return f"excluded: {choice.excluded[composite]}"
    for rank, ranked in enumerate(choice.ranked, 1):
        if ranked.composite == composite:
            best = choice.ranked[0]
            text = f"rank {rank} of {len(choice.ranked)}: {explain_bottleneck(ranked, choice.use)}"
            if ranked is best:
                return text
            loss = explain_loss(best, ranked, choice.use)
            return f"{text}; compared with {best.composite}: {loss}"
    return ""
