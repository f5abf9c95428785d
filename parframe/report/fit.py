"""Minimum number of devices of each model, GPU and dtype, as tables and as facts for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.price.choose.minimum_devices import Fit
from parframe.report.screen import BLANK, FirstThatFits, heading, lines, table


def fit_facts(
    fits: Sequence[Mapping[str, Any]], length: int, engine: str, cache_dtype: str, max_devices: int
) -> dict[str, Any]:
    """Return all fits with their common settings as facts for JSON."""
    return {
        "sequence_length": length,
        "engine": engine,
        "cache_dtype": cache_dtype,
        "max_devices": max_devices,
        "fits": list(fits),
    }


def model_facts(model: str, device: str, dtype: str, fit: Fit | None) -> dict[str, Any]:
    """Return the fit of one model on one GPU in one dtype; ``devices`` is None where none fits."""
    return {
        "model": model,
        "gpu": device,
        "weight_dtype": dtype,
        "devices": fit.devices if fit else None,
        "composite": fit.composite if fit else None,
        "sequences": fit.sequences if fit else None,
    }


def draw_fits(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Draw a table for every GPU, with a row for each model and a column for each dtype."""
    yield lines(
        [
            f"GPUs x concurrent sequences of {facts['sequence_length']:,} tokens, by weight dtype; "
            f"engine {facts['engine']}, {facts['cache_dtype']} KV cache, at most "
            f"{facts['max_devices']:,} GPUs"
        ]
    )
    for device in dict.fromkeys(fit["gpu"] for fit in facts["fits"]):
        fits = [fit for fit in facts["fits"] if fit["gpu"] == device]
        dtypes = list(dict.fromkeys(fit["weight_dtype"] for fit in fits))
        yield BLANK
        yield heading(device)
        yield FirstThatFits(
            _table_by_dtype(fits, dtypes, " "), _table_by_dtype(fits, dtypes, "\n"), _list(fits)
        )


def _table_by_dtype(
    fits: Sequence[Mapping[str, Any]], dtypes: Sequence[str], separator: str
) -> RenderableType:
    """Return a table with a column for each dtype, with the composite after the separator."""
    cells = {(fit["model"], fit["weight_dtype"]): _cell(fit, separator) for fit in fits}
    models = dict.fromkeys(fit["model"] for fit in fits)
    rows = [(model, *(cells[model, dtype] for dtype in dtypes)) for model in models]
    return table(("model", *dtypes), rows, whole=dtypes)


def _list(fits: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return a table with a row for each model and dtype."""
    columns = ("dtype", "GPUs", "sequences", "composite")
    rows = [
        (fit["model"], fit["weight_dtype"], *_parts(fit), fit["composite"] or "") for fit in fits
    ]
    return table(("model", *columns), rows, right=columns[1:3], whole=columns)


def _cell(fit: Mapping[str, Any], separator: str) -> str:
    devices, sequences = _parts(fit)
    composite = f"{separator}{fit['composite']}" if fit["composite"] else ""
    return f"{devices} x {sequences}{composite}" if sequences else devices


def _parts(fit: Mapping[str, Any]) -> tuple[str, str]:
    if fit["devices"] is None:
        return "no", ""
    return f"{fit['devices']:,}", f"{fit['sequences']:,}"
