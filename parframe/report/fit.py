"""Which model fits on how many of which GPU, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.price.choose.minimum_devices import Fitting
from parframe.report.screen import BLANK, heading, line, table

NONE = "no"
"""What stands where nothing fits."""


def fit_fact(model: str, device: str, dtype: str, found: Fitting | None) -> dict[str, Any]:
    """One model on one GPU in one dtype; without devices where it fits on none."""
    return {
        "model": model,
        "gpu": device,
        "weights": dtype,
        "devices": found.devices if found else None,
        "composite": found.composite if found else None,
        "sequences": found.sequences if found else None,
    }


def draw_fits(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table for every GPU: a row for a model, a column for a dtype."""
    yield line(
        f"Devices x sequences of {facts['length']} positions, in {facts['engine']}; "
        f"a cache of {facts['cache']}; at most {facts['most']} devices"
    )
    for device in dict.fromkeys(fit["gpu"] for fit in facts["fits"]):
        own = [fit for fit in facts["fits"] if fit["gpu"] == device]
        dtypes = list(dict.fromkeys(fit["weights"] for fit in own))
        models = dict.fromkeys(fit["model"] for fit in own)
        yield BLANK
        yield heading(device)
        cells = {(fit["model"], fit["weights"]): _cell(fit) for fit in own}
        rows: list[Sequence[str]] = [
            (model, *(cells[model, dtype] for dtype in dtypes)) for model in models
        ]
        yield table(("model", *dtypes), rows)


def _cell(fit: Mapping[str, Any]) -> str:
    if fit["devices"] is None:
        return NONE
    how = f" ({fit['composite']})" if fit["composite"] else ""
    return f"{fit['devices']} x {fit['sequences']}{how}"
