"""Fit of the engines that ship: reads tables of measurements, writes ``engines.toml``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import attrs
import numpy as np

from benchmarks.calibration.engine_fit import Case, Split, cases, errors, fit, left_out
from benchmarks.calibration.engine_rows import Measured, read_folder
from benchmarks.calibration.fitted_rows import split_rows
from benchmarks.calibration.residuals import (
    by_kind,
    combined_errors,
    kernel_errors,
    kind_of,
    spread,
)
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model
from parframe.price.serving.engines import Engine, find_engine

HEAD = """\
# Constants of serving engines, fitted to measured rows by `python -m benchmarks.calibration.fit`;
# parframe/price/serving/engines.py describes them. `aliases`, `fitted` and the constants that are
# not fitted are written by hand and kept.
"""

KINDS = ("throughput", "tpot", "ttft", "e2e_latency")
"""All kinds of metrics."""

FIGURES = 4
"""Significant figures that are written."""


def rebuild(folder: Path, report: Callable[[str], None]) -> str:
    """Fit engines to the recorded rows of a folder's tables, and return the data file's text.

    Parameters
    ----------
    folder
        Folder of the tables of measurements.
    report
        Called with a line of progress for each engine.
    """
    rows, _ = split_rows(read_folder(folder))
    return text(rebuilt(rows, Registry(servable_model), report))


def rebuilt(
    rows: Sequence[Measured], registry: Registry, report: Callable[[str], None]
) -> tuple[Engine, ...]:
    """Fit all engines of a registry to the rows that name them."""
    found = []
    for own in registry.engines:
        if own.measured:
            mine = _of(own, rows, registry)
            report(f"{own.name}: {len(mine)} rows")
            found.append(_rebuilt(own, mine, registry))
    found = [_with_usual_errors(own, found) for own in found]
    report("median of all engines")
    pool = next(own for own in registry.engines if not own.measured)
    return (*found, _pooled(pool, found, rows, registry))


def text(found: Iterable[Engine]) -> str:
    """Return engines as TOML."""
    return "\n".join([HEAD, *(_entry(own) for own in found)])


def _of(own: Engine, rows: Sequence[Measured], registry: Registry) -> list[Measured]:
    return [
        row for row in rows if find_engine(row.asked.framework, registry.engines).name == own.name
    ]


def _rebuilt(own: Engine, rows: Sequence[Measured], registry: Registry) -> Engine:
    """Fit one engine and its errors for lengths, models and devices it was not fitted to."""
    some = cases(rows, registry)
    if not some:
        return own
    found = fit(some, own, own.fitted)
    errors_of_kernels = kernel_errors(some, found)
    usual = float(np.quantile(errors_of_kernels, 0.9))
    lengths = left_out(some, own, own.fitted, _alike(some))
    known = by_kind(lengths, some, np.zeros(len(some)))
    other = combined_errors(some, known, usual, errors_of_kernels)
    unseen_model = unseen_device = 0.0
    if _several(some, _model):
        unseen_model = spread(left_out(some, own, own.fitted, _model), other)
    if _several(some, _device):

        @cache
        def retimed(device: Hashable) -> Sequence[Case]:
            return cases(rows, attrs.evolve(registry, unseen=str(device)))

        anew = [retimed(_device(case))[place] for place, case in enumerate(some)]
        other = combined_errors(anew, known, usual, kernel_errors(anew, found))
        unseen_device = spread(left_out(some, own, own.fitted, _device, retimed), other)
    return attrs.evolve(
        found,
        residual=known,
        kernel_error=usual,
        fitted_models=tuple(sorted({case.found.model for case in some})),
        fitted_devices=tuple(sorted({case.found.device for case in some})),
        unseen_model=unseen_model,
        unseen_device=unseen_device,
        sources=dict(Counter(row.table for row in rows)),
    )


def _several(some: Sequence[Case], by: Split) -> bool:
    return len(set(map(by, some))) > 1


def _alike(some: Sequence[Case]) -> Split:
    """Return the split by which rows are left out to measure errors of known models and devices."""
    return _lengths if _several(some, _lengths) else _layout


def _layout(case: Case) -> Hashable:
    return case.measured.asked.tensor, case.measured.asked.pipeline


def _lengths(case: Case) -> Hashable:
    return case.measured.asked.prompt, case.measured.asked.output


def _model(case: Case) -> Hashable:
    return case.found.model


def _device(case: Case) -> Hashable:
    return case.found.device


def _with_usual_errors(own: Engine, among: Sequence[Engine]) -> Engine:
    """Give an engine with rows of one model or device the largest such error of all engines."""
    usual = {
        name: max(getattr(one, name) for one in among) for name in ("unseen_model", "unseen_device")
    }
    return own.with_constants({name: getattr(own, name) or value for name, value in usual.items()})


def _pooled(
    pool: Engine, among: Sequence[Engine], rows: Sequence[Measured], registry: Registry
) -> Engine:
    """Return the median of all engines, with the error of each family by the others' median.

    Families have equal weight. TTFT, which includes queueing, has an error of its own; all other
    metrics share one.
    """
    off, of_kernels, group, weights = [], [], [], []
    for family in dict.fromkeys(map(_family, among)):
        others = [one for one in among if _family(one) != family]
        median = _median(pool, others)
        kin = [
            (own, cases(_of(own, rows, registry), registry))
            for own in among
            if _family(own) == family
        ]
        some = [case for _, its in kin for case in its]
        off += errors(some, median).tolist()
        of_kernels += [one for own, its in kin for one in kernel_errors(its, own).tolist()]
        kinds = ["ttft" if kind_of(case) == "ttft" else "other" for case in some]
        counts = Counter(kinds)
        group += kinds
        weights += [1 / counts[one] for one in kinds]
    known = {
        one: spread(
            np.array(off)[np.array(group) == one],
            np.zeros(group.count(one)),
            np.array(weights)[np.array(group) == one],
        )
        for one in ("ttft", "other")
    }
    return attrs.evolve(
        _median(pool, among),
        residual={kind: known["ttft" if kind == "ttft" else "other"] for kind in KINDS},
        kernel_error=float(np.quantile(of_kernels, 0.9)),
    )


def _family(own: Engine) -> str:
    """Return the name of an engine without its version."""
    return own.name.split()[0]


def _median(pool: Engine, among: Sequence[Engine]) -> Engine:
    """Return the median of each constant over the engines that have it fitted."""
    fitted = {
        name: [getattr(one, name) for one in among if name in one.fitted] for name in pool.fitted
    }
    return pool.with_constants(
        {name: float(np.median(values)) for name, values in fitted.items() if values}
    )


def _entry(own: Engine) -> str:
    lines = [f"[engine.{_quoted(own.name)}]"]
    blank = Engine(own.name)
    tables: list[str] = []
    for field in attrs.fields(Engine):
        value = getattr(own, field.name)
        if field.name == "name" or value == getattr(blank, field.name):
            continue
        if isinstance(value, Mapping):
            tables.append(f"{field.name} = {{ {', '.join(_pairs(value))} }}")
        else:
            lines.append(f"{field.name} = {_plain(value)}")
    return "\n".join([*lines, *tables, ""])


def _pairs(value: Mapping[str, float]) -> Iterable[str]:
    return (f"{_quoted(name)} = {_plain(one)}" for name, one in value.items())


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_plain(one) for one in value)}]"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return repr(float(f"{value:.{FIGURES}g}"))
    return str(value)


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'
