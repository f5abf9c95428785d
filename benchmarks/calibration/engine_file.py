"""The engines that ship, fitted anew: tables of measurements in, ``engines.toml`` out."""

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
from benchmarks.calibration.residuals import beside_of, by_kind, doubts, kind_of, spread
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model
from parframe.price.serving.engines import Engine, find_engine

HEAD = """\
# Constants of serving engines, fitted to measured rows by `python -m benchmarks.calibration.fit`;
# parframe/price/serving/engines.py describes them. `aliases`, `fitted` and the constants that are
# not fitted are written by hand and kept.
"""

KINDS = ("throughput", "tpot", "ttft", "e2e_latency")
"""All kinds of figures."""

FIGURES = 4
"""Significant figures that are written."""


def rebuild(folder: Path, told: Callable[[str], None]) -> str:
    """Fit engines to the recorded rows of a folder's tables, and return the data file's text.

    Parameters
    ----------
    folder
        Where they are.
    told
        Called with what comes next.
    """
    rows, _ = split_rows(read_folder(folder))
    return text(rebuilt(rows, Registry(servable_model), told))


def rebuilt(
    rows: Sequence[Measured], registry: Registry, told: Callable[[str], None]
) -> tuple[Engine, ...]:
    """Fit all engines of a registry to the rows that name them."""
    found = []
    for own in registry.engines:
        if own.measured:
            mine = _of(own, rows, registry)
            told(f"{own.name}: {len(mine)} rows")
            found.append(_rebuilt(own, mine, registry))
    found = [_with_usual_spreads(own, found) for own in found]
    told("the middle of all engines")
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
    """Fit one engine, and tell its errors with lengths, models and devices it was not fitted to."""
    some = cases(rows, registry)
    if not some:
        return own
    found = fit(some, own, own.fitted)
    own_doubts = doubts(some, found)
    doubt = float(np.quantile(own_doubts, 0.9))
    lengths = left_out(some, own, own.fitted, _alike(some))
    known = by_kind(lengths, some, np.zeros(len(some)))
    beside = beside_of(some, known, doubt, own_doubts)
    unseen_model = unseen_device = 0.0
    if _several(some, _model):
        unseen_model = spread(left_out(some, own, own.fitted, _model), beside)
    if _several(some, _device):

        @cache
        def retimed(device: Hashable) -> Sequence[Case]:
            return cases(rows, attrs.evolve(registry, unseen=str(device)))

        anew = [retimed(_device(case))[place] for place, case in enumerate(some)]
        beside = beside_of(anew, known, doubt, doubts(anew, found))
        unseen_device = spread(left_out(some, own, own.fitted, _device, retimed), beside)
    return attrs.evolve(
        found,
        residual=known,
        kernel_error=doubt,
        fitted_models=tuple(sorted({case.found.model for case in some})),
        fitted_devices=tuple(sorted({case.found.device for case in some})),
        unseen_model=unseen_model,
        unseen_device=unseen_device,
        sources=dict(Counter(row.table for row in rows)),
    )


def _several(some: Sequence[Case], by: Split) -> bool:
    return len(set(map(by, some))) > 1


def _alike(some: Sequence[Case]) -> Split:
    """What rows are left out with to tell errors with known models and devices."""
    return _lengths if _several(some, _lengths) else _layout


def _layout(case: Case) -> Hashable:
    return case.measured.asked.tensor, case.measured.asked.pipeline


def _lengths(case: Case) -> Hashable:
    return case.measured.asked.prompt, case.measured.asked.output


def _model(case: Case) -> Hashable:
    return case.found.model


def _device(case: Case) -> Hashable:
    return case.found.device


def _with_usual_spreads(own: Engine, among: Sequence[Engine]) -> Engine:
    """Give an engine with rows of one model or one device the widest that others have beyond."""
    usual = {
        name: max(getattr(one, name) for one in among) for name in ("unseen_model", "unseen_device")
    }
    return own.with_constants({name: getattr(own, name) or value for name, value in usual.items()})


def _pooled(
    pool: Engine, among: Sequence[Engine], rows: Sequence[Measured], registry: Registry
) -> Engine:
    """The middle of all engines; its spread is that of each family's rows by the others' middle.

    Families count alike, and all but first tokens, which wait for others, have one spread.
    """
    off, beside, group, weights = [], [], [], []
    for family in dict.fromkeys(map(_family, among)):
        others = [one for one in among if _family(one) != family]
        middle = _middle(pool, others)
        kin = [
            (own, cases(_of(own, rows, registry), registry))
            for own in among
            if _family(own) == family
        ]
        some = [case for _, its in kin for case in its]
        off += errors(some, middle).tolist()
        beside += [one for own, its in kin for one in doubts(its, own).tolist()]
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
        _middle(pool, among),
        residual={kind: known["ttft" if kind == "ttft" else "other"] for kind in KINDS},
        kernel_error=float(np.quantile(beside, 0.9)),
    )


def _family(own: Engine) -> str:
    """The engine without its version."""
    return own.name.split()[0]


def _middle(pool: Engine, among: Sequence[Engine]) -> Engine:
    """The median of each constant over the engines that have it fitted."""
    middles = {
        name: [getattr(one, name) for one in among if name in one.fitted] for name in pool.fitted
    }
    return pool.with_constants(
        {name: float(np.median(values)) for name, values in middles.items() if values}
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
