"""Predictions against measured rows: errors, whether intervals hold, and what is chosen by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from statistics import NormalDist

import attrs
import numpy as np

from benchmarks.calibration.choice_quality import Choices, Tried, choices
from benchmarks.calibration.engine_fit import Case, cases, errors, left_out
from benchmarks.calibration.engine_rows import Measured
from parframe.errors import ParframeError
from parframe.price.predict.metrics import METRICS, metric_name
from parframe.price.predict.prediction_intervals import with_engine_error
from parframe.price.predict.predictions import estimate_query
from parframe.price.predict.query_resolution import Registry
from parframe.price.serving.engines import Engine, find_engine

REACH = NormalDist().inv_cdf(0.9)
"""CollectiveErrors to either side within which an interval's outcomes lie."""

Left = str
"""Rows that were left out of the fit: nothing, a model, a device, lengths."""


@attrs.frozen(eq=False)
class Outcome:
    """A measured row, and how a prediction of it came out.

    Parameters
    ----------
    case
        The row and what it names.
    engine
        The engine's name.
    left
        What was left out when its constants were fitted.
    off
        Logarithm of predicted over measured.
    spread
        What the prediction took its own error for.
    """

    case: Case
    engine: str
    left: Left
    off: float
    spread: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return math.exp(self.off) - 1

    @property
    def inside(self) -> bool:
        """True if the measured value lies in the 80 % interval."""
        return abs(self.off) <= REACH * self.spread


@attrs.frozen
class Errors:
    """The errors of rows that have something in common.

    Parameters
    ----------
    what
        What that is.
    rows
        How many there are.
    median, mean
        Of the absolute errors, as shares.
    bias
        The median error, with its sign.
    inside
        The share of measured values within their 80 % interval.
    """

    what: tuple[str, ...]
    rows: int
    median: float
    mean: float
    bias: float
    inside: float


Key = Callable[[Outcome], tuple[str, ...]]


def shipped_outcomes(rows: Sequence[Measured], registry: Registry) -> list[Outcome]:
    """Return how the constants that ship predict rows."""
    found = []
    for own in registry.engines:
        some = cases(_of(own, rows, registry), registry)
        off = errors(some, own)
        found += [
            Outcome(case, own.name, "nothing", float(one), _spread(case, own, "nothing"))
            for case, one in zip(some, off, strict=True)
            if not math.isnan(one)
        ]
    return found


def left_out_outcomes(rows: Sequence[Measured], registry: Registry) -> list[Outcome]:
    """Return how constants predict models, devices and lengths that they were not fitted to.

    Where a device is left out, its own kernel times are as well.
    """
    found = []
    for own in registry.engines:
        if not own.measured:
            continue
        own_rows = _of(own, rows, registry)
        some = cases(own_rows, registry)

        @cache
        def retimed(
            device: Hashable, own_rows: tuple[Measured, ...] = tuple(own_rows)
        ) -> Sequence[Case]:
            return cases(own_rows, attrs.evolve(registry, unseen=str(device)))

        for left, by in SPLITS.items():
            if len({by(case) for case in some}) < 2:
                continue
            anew = retimed if left == "device" else None
            off = left_out(some, own, own.fitted, by, anew)
            for place, (case, one) in enumerate(zip(some, off, strict=True)):
                if math.isnan(one):
                    continue
                seen = anew(by(case))[place] if anew else case
                found.append(Outcome(seen, own.name, left, float(one), _spread(seen, own, left)))
    return found


SPLITS: dict[Left, Callable[[Case], Hashable]] = {
    "model": lambda case: case.found.model,
    "device": lambda case: case.found.device,
    "lengths": lambda case: (case.measured.asked.prompt, case.measured.asked.output),
}


def summary(outcomes: Iterable[Outcome], key: Key) -> list[Errors]:
    """Return the errors of each group of outcomes, largest group first within its name."""
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(key(one), []).append(one)
    return [_errors(what, several) for what, several in sorted(groups.items())]


def by_engine_device_model(one: Outcome) -> tuple[str, ...]:
    """Tell an outcome's engine, device, model and metric."""
    found = one.case.found
    return one.engine, found.device, found.model, metric_name(one.case.measured.asked.metric)


def by_engine(one: Outcome) -> tuple[str, ...]:
    """Tell an outcome's engine and metric."""
    return one.engine, metric_name(one.case.measured.asked.metric)


def chosen(outcomes: Iterable[Outcome]) -> Choices:
    """Return how well predictions choose among configurations that were measured alike."""
    return choices(tried(outcomes))


def tried(outcomes: Iterable[Outcome]) -> list[Tried]:
    """Return measured configurations with their latency and rate, and those predicted."""
    together: dict[Hashable, dict[str, Outcome]] = {}
    for one in outcomes:
        asked = one.case.measured.asked
        alike = attrs.evolve(asked, metric="", unit="")
        together.setdefault((one.left, alike), {})[metric_name(asked.metric)] = one
    found = [_tried(alike) for alike in together.values()]
    return [one for one in found if one is not None]


def _tried(metrics: dict[str, Outcome]) -> Tried | None:
    """One configuration by the metrics that were measured of it."""
    one = next(iter(metrics.values()))
    asked, devices = one.case.measured.asked, one.case.found.devices
    group = (
        one.engine, asked.framework, one.case.found.model, one.case.found.device, asked.weights,
        asked.prompt, asked.output,
    )  # fmt: skip
    rows, output = asked.batch or asked.concurrency or math.inf, asked.output or 1.0
    if "output_tokens_per_s_total" in metrics and rows == math.inf:
        value, guess = _pair(metrics["output_tokens_per_s_total"])
        return Tried(group, 0.0, 0.0, value / devices, guess / devices)
    if "tpot" in metrics and "ttft" in metrics and rows < math.inf:
        token, token_guess = _pair(metrics["tpot"])
        first, first_guess = _pair(metrics["ttft"])
        work = rows * output / devices
        rate = work / (first + token * (output - 1))
        guess = work / (first_guess + token_guess * (output - 1))
        return Tried(group, token, token_guess, rate, guess)
    if "e2e_latency" in metrics and rows < math.inf:
        value, guess = _pair(metrics["e2e_latency"])
        work = rows * output / devices
        return Tried(group, value / output, guess / output, work / value, work / guess)
    return None


def _pair(one: Outcome) -> tuple[float, float]:
    value = one.case.measured.value
    return value, value * math.exp(one.off)


def _errors(what: tuple[str, ...], several: Sequence[Outcome]) -> Errors:
    off = np.array([one.error for one in several])
    return Errors(
        what,
        len(several),
        float(np.median(np.abs(off))),
        float(np.abs(off).mean()),
        float(np.median(off)),
        sum(one.inside for one in several) / len(several),
    )


def _of(own: Engine, rows: Sequence[Measured], registry: Registry) -> list[Measured]:
    return [
        row for row in rows if find_engine(row.asked.framework, registry.engines).name == own.name
    ]


def _spread(case: Case, own: Engine, left: Left) -> float:
    """Return the error a prediction would have without measurements of what was left out."""
    if left == "model":
        own = attrs.evolve(own, fitted_models=())
    if left == "device":
        own = attrs.evolve(own, fitted_devices=())
    found = attrs.evolve(case.found, deployment=attrs.evolve(case.found.deployment, engine=own))
    metric = METRICS[metric_name(case.measured.asked.metric)]
    try:
        estimate = estimate_query(case.measured.asked, found)
    except ParframeError:
        return math.nan
    own = with_engine_error(metric.kind, estimate, found.deployment, found.model, found.device)
    return own.log_std
