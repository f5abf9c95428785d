"""Settings of a run that generates text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean

DEVICES = ("cpu", "cuda")
"""Kinds of devices."""


@attrs.frozen
class Settings:
    """Settings of a run.

    Parameters
    ----------
    weights
        Weights folder; None for random weights.
    dtype
        Dtype of the computation; None for that of the weights.
    device
        ``cpu`` or ``cuda``.
    executor
        Name of the executor.
    compiled
        Whether decode steps are compiled.
    context
        Positions of the KV cache of a row; None for as many as the requests need.
    batch_size
        Requests that run together on a replica.
    micro_batches
        Micro-batches of a batch in a pipeline; None for the number of stages.
    timeout
        Seconds without progress after which a run fails.
    seed
        Seed of random weights.
    prefill_chunk
        Prompt tokens of one prefill step, so that memory does not grow with the prompt.
    cached
        Whether to use a KV cache; without it every step computes the whole text again.
    pickled, extra
        Whether to read pickled weights, and whether to ignore tensors that the model does not
        use; see `parframe.weights.read_weights`.
    share_gpus
        Whether ranks may share a GPU, for tests. They communicate over gloo, which is slow, since
        NCCL does not support it.
    bind_cpus
        Whether to bind each process of a local run to CPUs of its own.
    """

    weights: Path | None = None
    dtype: str | None = None
    device: str = "cpu"
    executor: str = "local"
    compiled: bool = False
    context: int | None = None
    batch_size: int = 8
    micro_batches: int | None = None
    timeout: float = 600.0
    seed: int = 0
    prefill_chunk: int = 512
    cached: bool = True
    pickled: bool = False
    extra: bool = False
    share_gpus: bool = False
    bind_cpus: bool = True

    def __attrs_post_init__(self) -> None:
        counts = {
            "context": self.context,
            "batch_size": self.batch_size,
            "prefill_chunk": self.prefill_chunk,
            "micro_batches": self.micro_batches,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ParframeError("input", name, f"is {count}", "use at least 1")
        if self.device not in DEVICES:
            raise ParframeError(
                "input",
                "device",
                f"unknown kind {self.device!r}{did_you_mean(self.device, DEVICES)}",
                f"use one of {', '.join(DEVICES)}",
            )
        if not 0 < self.timeout < float("inf"):
            raise ParframeError(
                "input", "timeout", f"is {self.timeout} seconds", "use a number above 0"
            )
        if self.micro_batches is not None and self.micro_batches > self.batch_size:
            raise ParframeError(
                "input",
                "micro_batches",
                f"{self.batch_size} rows cannot be split into {self.micro_batches} micro-batches",
                f"use at most {self.batch_size}, or a larger batch_size",
            )


def settings_from_json(facts: Mapping[str, Any]) -> Settings:
    """Create settings from the JSON object of `settings_to_json`."""
    weights = facts["weights"]
    return Settings(**{**facts, "weights": None if weights is None else Path(weights)})


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Return settings as a JSON object."""
    facts = attrs.asdict(settings)
    return {**facts, "weights": None if settings.weights is None else str(settings.weights)}
