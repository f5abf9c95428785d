"""How near kernels come to what a chip could do: what is fitted, and what stands in for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from statistics import median
from typing import Any, Literal

import attrs

from parframe.price.cost.chip import Chip

Operator = Literal["product", "attention", "experts", "pointwise"]

UNMEASURED_DTYPE = 0.15
"""The further spread of a kernel that is timed by the rows of another dtype."""


UNMEASURED_ARCHITECTURE = 0.2
"""The further spread of a kernel on an architecture that no measured one is kindred to."""

WIDER: Mapping[str, tuple[str, ...]] = {
    "fp4": ("fp8", "bf16"),
    "int4": ("fp8", "bf16"),
    "int8": ("fp8", "bf16"),
    "fp8": ("bf16",),
}
"""The dtypes whose rows stand in for those of another."""


@attrs.frozen
class Efficiency:
    """What is fitted of an operator on a device in a dtype.

    Parameters
    ----------
    overhead
        Seconds of a kernel that does nothing, on the device; that of a decode step in attention.
    memory
        Part of the memory's bandwidth that is reached.
    compute
        Part of the dense rate that is reached.
    sustained
        How much longer products take that last far over a millisecond, when the limit of power
        lowers the clock.
    start
        Of attention to a prompt: seconds of a kernel that does nothing.
    tile
        Of attention to a prompt: what a tile of queries costs by itself, in keys.
    merge
        Of a decode step's attention: seconds for every doubling of the keys, which are read in
        parallel parts that must be merged.
    log_std
        Standard deviation of the logarithm of measured over fitted times.
    rows
        How many rows it was fitted to.
    """

    overhead: float
    memory: float
    compute: float = 1.0
    sustained: float = 0.0
    start: float = 0.0
    tile: float = 0.0
    merge: float = 0.0
    log_std: float = 0.0
    rows: int = 0


KINDRED = (("volta", "turing", "ampere", "ada"), ("hopper", "blackwell"))
"""Architectures that kernels are written for in one way: with and without asynchronous products of
a whole group of warps and copies by the memory's own engine."""

FIGURES = ("overhead", "memory", "compute", "sustained", "start", "tile", "merge")
"""The fields of an efficiency that are fitted."""

Fitted = Mapping[str, Mapping[str, Mapping[str, Efficiency]]]
"""Efficiencies by operator, device and dtype."""


@attrs.frozen(eq=False)
class Efficiencies:
    """All that is fitted of kernels.

    Parameters
    ----------
    fitted
        By operator, device and dtype.
    architectures
        The architecture of each fitted device.
    unseen
        By operator: the spread of times on a device that was left out of the fit.
    sources
        The files of rows that it was fitted to.
    widening
        How much longer a product takes that widens its weights as it reads them.
    """

    fitted: Fitted
    architectures: Mapping[str, str]
    unseen: Mapping[str, float]
    sources: tuple[str, ...] = ()
    widening: float = 1.0

    @lru_cache(maxsize=4096)  # noqa: B019 - there are few of them, and all of them stay
    def find(
        self, operator: Operator, chip: Chip, dtype: str, without: str | None = None
    ) -> tuple[Efficiency, tuple[str, ...]]:
        """Return the efficiency for a chip and why it may be off, ``without`` a device's own rows.

        Its own rows come first, then the median of its architecture, that of kindred ones, that of
        all devices; rows of the dtype before those of a wider one.
        """
        table = {
            device: dtypes
            for device, dtypes in self.fitted.get(operator, {}).items()
            if device != without
        }
        own = table.get(chip.key, {})
        if dtype in own:
            return own[dtype], ()
        circles = [
            {
                device: found
                for device, found in table.items()
                if self.architectures[device] in circle
            }
            for circle in ((chip.architecture,), *KINDRED)
            if chip.architecture in circle
        ]
        for kind in (dtype, *WIDER.get(dtype, ())):
            for devices in (*circles, table):
                rows = {device: found[kind] for device, found in devices.items() if kind in found}
                if rows:
                    return self._stand_in(operator, chip, dtype, kind, rows)
        return Efficiency(5e-6, 0.7, 0.6, log_std=0.6), (f"no rows of {operator} at all",)

    def _stand_in(
        self,
        operator: Operator,
        chip: Chip,
        dtype: str,
        kind: str,
        rows: Mapping[str, Efficiency],
    ) -> tuple[Efficiency, tuple[str, ...]]:
        pooled = typical(rows.values())
        spread = pooled.log_std
        why = f"{operator} in {dtype} was not measured on {chip.key}: as on {', '.join(rows)}"
        if chip.key not in rows:
            spread = max(spread, self.unseen.get(operator, 0.0))
            if not _kindred(chip.architecture, {self.architectures[device] for device in rows}):
                spread += UNMEASURED_ARCHITECTURE
        if kind != dtype:
            spread += UNMEASURED_DTYPE
            why += f" in {kind}"
        return attrs.evolve(pooled, log_std=spread), (why,)


def _kindred(architecture: str, others: Iterable[str]) -> bool:
    circles = ((architecture,), *(circle for circle in KINDRED if architecture in circle))
    return any(other in circle for circle in circles for other in others)


def typical(rows: Iterable[Efficiency]) -> Efficiency:
    """Return the median of each figure."""
    rows = list(rows)
    middle = {name: median(getattr(row, name) for row in rows) for name in FIGURES}
    return Efficiency(**middle, log_std=max(row.log_std for row in rows))


@cache
def shipped() -> Efficiencies:
    """Return the efficiencies that come with parframe."""
    text = (files("parframe.price") / "data" / "kernels.json").read_text(encoding="utf-8")
    return read(json.loads(text))


def read(data: Mapping[str, Any]) -> Efficiencies:
    """Read what :func:`write` gave."""
    return Efficiencies(
        fitted={
            operator: {
                device: {dtype: Efficiency(**figures) for dtype, figures in dtypes.items()}
                for device, dtypes in devices.items()
            }
            for operator, devices in data["fitted"].items()
        },
        architectures=data["architectures"],
        unseen=data["unseen"],
        sources=tuple(data["sources"]),
        widening=data["widening"],
    )


def write(efficiencies: Efficiencies) -> dict[str, object]:
    """Give efficiencies as plain data for a JSON file."""
    return {
        "sources": list(efficiencies.sources),
        "widening": efficiencies.widening,
        "architectures": dict(efficiencies.architectures),
        "unseen": {operator: round(s, 3) for operator, s in efficiencies.unseen.items()},
        "fitted": {
            operator: {
                device: {dtype: _figures(found) for dtype, found in dtypes.items()}
                for device, dtypes in devices.items()
            }
            for operator, devices in efficiencies.fitted.items()
        },
    }


def _figures(efficiency: Efficiency) -> dict[str, float]:
    given = attrs.asdict(efficiency, filter=lambda field, value: value != field.default)
    rounded = {name: float(f"{value:.4g}") for name, value in given.items()}
    return rounded | {"rows": efficiency.rows}
