"""Figures of a deployment at one concurrency: facts for JSON, and cells of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from parframe.price.choose.candidates import OperatingPoint
from parframe.price.choose.setup import ServingSetup
from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.serving.engines import MEDIAN

Interval = tuple[float, float, float]
"""Low end of an 80 % interval, median, and high end."""


def interval(estimate: Estimate, factor: float = 1.0) -> Interval:
    """Return an estimate with its 80 % interval, multiplied by a factor."""
    low, high = estimate.interval()
    return low * factor, estimate.value * factor, high * factor


def latency_facts(point: OperatingPoint) -> dict[str, Any]:
    """Return the concurrency and the latencies of a point, for JSON."""
    return {
        "concurrency": point.concurrency,
        "ttft_ms": interval(point.ttft, 1e3),
        "tpot_ms": interval(point.tpot, 1e3),
    }


def rate_facts(point: OperatingPoint) -> dict[str, float]:
    """Return the tokens per second of a user and of a device, for JSON."""
    return {
        "tokens_per_second_per_user": point.rate_per_user,
        "tokens_per_second_per_gpu": point.rate_per_device,
    }


def setup_facts(setup: ServingSetup) -> dict[str, Any]:
    """Return the devices and the engine of a setup, for JSON."""
    machine = setup.cluster.machine
    return {
        "devices": setup.cluster.devices,
        "device": machine.device.name,
        "machine": machine.name,
        "engine": setup.engine.name,
    }


def setup_label(facts: Mapping[str, Any]) -> str:
    """Return the devices and the engine of `setup_facts` in words."""
    machine = f" ({facts['machine']})" if facts["machine"] != facts["device"] else ""
    engine = "median engine" if facts["engine"] == MEDIAN else facts["engine"]
    return f"{facts['devices']} x {facts['device']}{machine}, {engine}"


def point_notes(point: OperatingPoint) -> list[str]:
    """Return the notes on the estimates of a point, each once."""
    return list(merge_notes(point.tpot.notes, point.output_rate.notes, point.ttft.notes))


def interval_cell(interval: Sequence[float], separator: str = " ") -> str:
    """Return a figure with its interval after the separator, with the decimals of the median.

    Examples
    --------
    >>> interval_cell((214.2, 446.9, 934.1)), interval_cell((7.84, 9.7, 12.24))
    ('447 (214-934)', '9.7 (7.8-12.2)')
    """
    low, median, high = (f"{value:,.{_decimals(interval[1])}f}" for value in interval)
    return f"{median}{separator}({low}-{high})"


def number(value: float) -> str:
    """Return a number with two or more significant digits.

    Examples
    --------
    >>> number(12345.6), number(99.94), number(0.52), number(0.0043)
    ('12,346', '99.9', '0.52', '0.0043')
    """
    return f"{value:,.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    """Return the decimals of a number."""
    if value >= 1:
        return 0 if value >= 99.95 else 1
    return 1 - math.floor(math.log10(value)) if 0 < value < 0.1 else 2
