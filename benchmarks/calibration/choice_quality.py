"""Quality of the choice by prediction among measured configurations under a latency limit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import attrs

LIMITS = (5e-3, 7.5e-3, 10e-3, 15e-3, 20e-3, 30e-3, 50e-3, 100e-3, float("inf"))
"""Seconds of a token that a user may wait: readers, voices and none at all among them."""


@attrs.frozen
class Tried:
    """A configuration that was measured, and what was predicted of it.

    Parameters
    ----------
    group
        What those that are chosen among have in common: model, device, engine, lengths.
    latency, predicted_latency
        Seconds of a token.
    rate, predicted_rate
        Tokens a second of a device.
    """

    group: Hashable
    latency: float
    predicted_latency: float
    rate: float
    predicted_rate: float


@attrs.frozen
class Choices:
    """Results of choosing by prediction.

    Parameters
    ----------
    cases
        Groups times limits that some configuration keeps.
    exact
        Share in which the best was chosen.
    violated
        Share in which the one that was chosen breaks the limit.
    regret
        Mean share of the best one's rate that those lose that keep the limit.
    none
        Share in which predictions keep no configuration, though one keeps the limit.
    """

    cases: int
    exact: float
    violated: float
    regret: float
    none: float


def choices(tried: Iterable[Tried], limits: Sequence[float] = LIMITS) -> Choices:
    """Choose in each group and under each limit, and tell how it went.

    Limits that all configurations of a group keep, but for the last one, and those that none keeps
    say nothing and are left out.
    """
    groups: dict[Hashable, list[Tried]] = {}
    for one in tried:
        groups.setdefault(one.group, []).append(one)
    outcomes = [
        outcome
        for several in groups.values()
        if len(several) > 1
        for limit in _telling(several, limits)
        if (outcome := _choose(several, limit)) is not None
    ]
    if not outcomes:
        return Choices(0, 0.0, 0.0, 0.0, 0.0)
    count = len(outcomes)
    losses = [loss for kind, loss in outcomes if kind in ("exact", "other")]
    share = {
        kind: sum(one == kind for one, _ in outcomes) / count
        for kind in ("exact", "violated", "none")
    }
    regret = sum(losses) / len(losses) if losses else 0.0
    return Choices(count, share["exact"], share["violated"], regret, share["none"])


def _telling(several: Sequence[Tried], limits: Sequence[float]) -> list[float]:
    slowest = max(one.latency for one in several)
    return [limit for limit in limits if limit < slowest or limit == float("inf")]


def _choose(several: Sequence[Tried], limit: float) -> tuple[str, float] | None:
    keeping = [one for one in several if one.latency <= limit]
    if not keeping:
        return None
    best = max(keeping, key=lambda one: one.rate)
    hoped = [one for one in several if one.predicted_latency <= limit]
    if not hoped:
        return "none", 1.0
    chosen = max(hoped, key=lambda one: one.predicted_rate)
    if chosen.latency > limit:
        return "violated", 0.0
    if chosen is best:
        return "exact", 0.0
    return "other", 1 - chosen.rate / best.rate
