"""Work of a plan in an engine without sliding windows, or with logits of every position."""

from __future__ import annotations

from functools import lru_cache

import attrs

from parframe.price.work.work import Attention, Experts, Stage, Work


@lru_cache(maxsize=4096)
def without_windows(work: Work) -> Work:
    """Return the work of an engine that stores and reads all positions of the KV cache."""
    return attrs.evolve(work, stages=tuple(_without_windows(stage) for stage in work.stages))


def _without_windows(stage: Stage) -> Stage:
    kernels = tuple(
        attrs.evolve(kernel, window=None) if isinstance(kernel, Attention) else kernel
        for kernel in stage.kernels
    )
    cache = tuple((elements, None) for elements, _ in stage.footprint.cache)
    footprint = attrs.evolve(stage.footprint, cache=cache)
    return attrs.evolve(stage, kernels=kernels, footprint=footprint)


@lru_cache(maxsize=4096)
def with_all_logits(work: Work) -> Work:
    """Return the work of an engine whose head computes logits of every position of a prompt."""
    return attrs.evolve(work, stages=tuple(_with_all_logits(stage) for stage in work.stages))


def _with_all_logits(stage: Stage) -> Stage:
    kernels = tuple(
        kernel if isinstance(kernel, Attention | Experts) else attrs.evolve(kernel, per="token")
        for kernel in stage.kernels
    )
    communication = tuple(attrs.evolve(operator, per="token") for operator in stage.communication)
    return attrs.evolve(stage, kernels=kernels, communication=communication)
