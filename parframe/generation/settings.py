"""How a plan is run to generate text, as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean

DEVICES = ("cpu", "cuda")
"""The kinds of devices that a plan is run on."""


@attrs.frozen
class Settings:
    """How a plan is run.

    Parameters
    ----------
    weights
        The folder of the weights; None for random ones.
    dtype
        The type to compute in; None for that of the weights.
    device
        ``cpu`` or ``cuda``.
    executor
        The name of what starts the devices.
    compiled
        Whether the devices' modules are compiled.
    context
        How many positions the cache of a row has; None for as many as are needed.
    rows
        How many requests run together on a replica.
    micro_batches
        Into how many parts pipeline stages split a batch; None for as many as there are stages.
    timeout
        For how many seconds a device may be silent.
    seed
        The seed of random weights.
    chunk
        How many tokens of a prompt are computed at once, so that memory does not grow with it.
    cached
        Whether keys and values are kept; without that every token computes all before it again.
    pickled, extra
        Whether pickles of weights may be read, and tensors that the model has no use for left out;
        see `parframe.weights.read_weights`.
    shared
        Whether several ranks may share a GPU, as tests do: NCCL refuses that, so that they speak
        over gloo, which is slow.
    bound
        Whether each process of a run on the CPUs of this host keeps to processors of its own.
    """

    weights: Path | None = None
    dtype: str | None = None
    device: str = "cpu"
    executor: str = "local"
    compiled: bool = False
    context: int | None = None
    rows: int = 8
    micro_batches: int | None = None
    timeout: float = 600.0
    seed: int = 0
    chunk: int = 512
    cached: bool = True
    pickled: bool = False
    extra: bool = False
    shared: bool = False
    bound: bool = True

    def __attrs_post_init__(self) -> None:
        counts = {
            "context": self.context,
            "rows": self.rows,
            "chunk": self.chunk,
            "micro_batches": self.micro_batches,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ParframeError("input", name, f"is {count}", "give at least 1")
        if self.device not in DEVICES:
            raise ParframeError(
                "input",
                "device",
                f"there is none of the kind {self.device!r}{did_you_mean(self.device, DEVICES)}",
                f"give one of {', '.join(DEVICES)}",
            )
        if not 0 < self.timeout < float("inf"):
            raise ParframeError(
                "input", "timeout", f"is {self.timeout} seconds", "give a number above 0"
            )
        if self.micro_batches is not None and self.micro_batches > self.rows:
            raise ParframeError(
                "input",
                "micro_batches",
                f"{self.rows} rows cannot be split into {self.micro_batches} parts",
                f"give at most {self.rows}, or more rows",
            )


def settings_of(facts: Mapping[str, Any]) -> Settings:
    """The settings that `facts_of_settings` gave."""
    weights = facts["weights"]
    return Settings(**{**facts, "weights": None if weights is None else Path(weights)})


def facts_of_settings(settings: Settings) -> dict[str, Any]:
    """Settings for JSON."""
    facts = attrs.asdict(settings)
    return {**facts, "weights": None if settings.weights is None else str(settings.weights)}
