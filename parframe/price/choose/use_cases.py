"""Use cases: lengths of prompts and outputs, concurrency, and limits of latency."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean

MAX_FIGURE = 1e9
"""Maximum of every figure of a use case."""

FIGURES = {
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "concurrency": "concurrency",
    "max_ttft": "maximum TTFT in seconds",
    "max_tpot": "maximum TPOT in seconds",
}
"""Names of the figures in errors."""


@attrs.frozen
class UseCase:
    """A use case, by which deployments are compared.

    Lengths are in tokens, the concurrency is over the whole deployment, limits are in seconds.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if a figure is not positive, or the limits contradict each other.
    """

    name: str
    title: str
    prompt_tokens: float
    output_tokens: float
    concurrency: float
    max_ttft: float | None = None
    max_tpot: float | None = None
    source: str = ""

    def __attrs_post_init__(self) -> None:
        for name, label in FIGURES.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_FIGURE:
                raise ParframeError(
                    "choice",
                    label,
                    f"{value:g} is out of range",
                    f"use a number above 0, up to {MAX_FIGURE:g}",
                )
        if (
            self.max_ttft is not None
            and self.max_tpot is not None
            and self.max_tpot > self.max_ttft
        ):
            raise ParframeError(
                "choice",
                f"limits TTFT {self.max_ttft * 1e3:g} ms and TPOT {self.max_tpot * 1e3:g} ms",
                "contradict each other, because a prefill step takes longer than a decode step",
                "set the limit of TTFT to at least that of TPOT",
            )

    def override(self, **figures: float | None) -> UseCase:
        """Return this use case with other figures; those that are None keep their value."""
        changes: dict[str, Any] = {
            name: value for name, value in figures.items() if value is not None
        }
        return attrs.evolve(self, **changes)


@cache
def shipped_use_cases() -> dict[str, UseCase]:
    """Return the use cases that ship, by name."""
    text = resources.files("parframe.price").joinpath("data", "use_cases.toml").read_text("utf-8")
    return {name: _parse_entry(name, entry) for name, entry in tomllib.loads(text).items()}


def _parse_entry(name: str, entry: dict[str, Any]) -> UseCase:
    """Return a use case from an entry, whose limits are in milliseconds."""
    keys = {"max_ttft_ms": "max_ttft", "max_tpot_ms": "max_tpot"}
    limits = {keys[key]: value / 1e3 for key, value in entry.items() if key in keys}
    return UseCase(name, **{key: entry[key] for key in entry if key not in keys}, **limits)


def find_use_case(name: str) -> UseCase:
    """Return the use case of a name.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if there is no use case of this name.
    """
    use_cases = shipped_use_cases()
    if name not in use_cases:
        raise ParframeError(
            "choice",
            f"use case {name!r}",
            f"is not known{did_you_mean(name, use_cases)}",
            f"use one of {', '.join(use_cases)}, and override its lengths and limits",
        )
    return use_cases[name]
