"""Efficiency of kernels relative to a chip's rates: fitted constants and their substitutes."""

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

UNMEASURED_DTYPE_LOG_STD = 0.15
"""Further error of a kernel that is predicted from the rows of another dtype."""


UNMEASURED_ARCHITECTURE_LOG_STD = 0.2
"""Further error of a kernel on an architecture that is unlike all measured ones."""

WIDER_DTYPES: Mapping[str, tuple[str, ...]] = {
    "fp4": ("fp8", "bf16"),
    "int4": ("fp8", "bf16"),
    "int8": ("fp8", "bf16"),
    "fp8": ("bf16",),
}
"""Dtypes whose rows substitute those of a dtype without rows."""


@attrs.frozen(cache_hash=True)
class Efficiency:
    """Fitted constants of an operator on a device in a dtype.

    Parameters
    ----------
    overhead
        Seconds of an empty kernel on the device; for attention, in decode.
    memory
        Part of the memory bandwidth that is reached.
    compute
        Part of the dense rate that is reached.
    sustained
        Relative slowdown of products that take far more than a millisecond, when the power limit
        lowers the clock.
    start
        Seconds of an empty attention kernel in prefill.
    tile
        Overhead of a tile of queries in prefill attention, in keys.
    merge
        Seconds of decode attention for every doubling of the keys, whose parallel parts are merged.
    log_std
        Standard deviation of the logarithm of measured over fitted times.
    rows
        Number of rows that it is fitted to.
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


SIMILAR_ARCHITECTURES = (("volta", "turing", "ampere", "ada"), ("hopper", "blackwell"))
"""Architectures with similar kernels: without and with warp-group matrix instructions (WGMMA) and
the tensor memory accelerator (TMA)."""

CONSTANTS = ("overhead", "memory", "compute", "sustained", "start", "tile", "merge")
"""Fields of an efficiency that are fitted."""

Fitted = Mapping[str, Mapping[str, Mapping[str, Efficiency]]]
"""Efficiencies by operator, device and dtype."""


@attrs.frozen(eq=False)
class Efficiencies:
    """Efficiencies of all kernels.

    Parameters
    ----------
    fitted
        Efficiencies by operator, device and dtype.
    architectures
        Architecture of each fitted device.
    held_out_log_std
        Error of the times on a held-out device, by operator.
    sources
        Tables that the constants are fitted to.
    widening
        Relative time of a product that dequantizes its weights as it reads them.
    """

    fitted: Fitted
    architectures: Mapping[str, str]
    held_out_log_std: Mapping[str, float]
    sources: tuple[str, ...] = ()
    widening: float = 1.0

    @lru_cache(maxsize=4096)  # noqa: B019 - only few objects exist, for the whole process
    def find(
        self, operator: Operator, chip: Chip, dtype: str, without: str | None = None
    ) -> tuple[Efficiency, tuple[str, ...]]:
        """Return the efficiency of an operator on a chip, and notes.

        Uses the chip's own rows if there are any, else the median of its architecture, of similar
        ones, or of all devices. Rows of the dtype come before those of a wider one.

        Rows of the device ``without`` are not used. fp16 has the efficiency of bf16.
        """
        dtype = "bf16" if dtype == "fp16" else dtype
        table = {k: own for k, own in self.fitted.get(operator, {}).items() if k != without}
        own = table.get(chip.key, {})
        if dtype in own:
            return own[dtype], ()
        circles = [
            {k: found for k, found in table.items() if self.architectures[k] in circle}
            for circle in ((chip.architecture,), *SIMILAR_ARCHITECTURES)
            if chip.architecture in circle
        ]
        for kind in (dtype, *WIDER_DTYPES.get(dtype, ())):
            for devices in (*circles, table):
                rows = {device: found[kind] for device, found in devices.items() if kind in found}
                if rows:
                    return self._stand_in(operator, chip, dtype, kind, rows)
        return Efficiency(5e-6, 0.7, 0.6, log_std=0.6), (
            f"{operator} was not measured on any device; using a default efficiency",
        )

    def _stand_in(
        self, operator: Operator, chip: Chip, dtype: str, kind: str, rows: Mapping[str, Efficiency]
    ) -> tuple[Efficiency, tuple[str, ...]]:
        pooled = median_efficiency(rows.values())
        spread = pooled.log_std
        why = (
            f"{operator} in {dtype} was not measured on {chip.key}; "
            f"using its efficiency on {', '.join(rows)}"
        )
        if chip.key not in rows:
            spread = max(spread, self.held_out_log_std.get(operator, 0.0))
            if not _is_similar(chip.architecture, {self.architectures[device] for device in rows}):
                spread += UNMEASURED_ARCHITECTURE_LOG_STD
        if kind != dtype:
            spread += UNMEASURED_DTYPE_LOG_STD
            why += f" in {kind}"
        return attrs.evolve(pooled, log_std=spread), (why,)


def _is_similar(architecture: str, others: Iterable[str]) -> bool:
    similar = (circle for circle in SIMILAR_ARCHITECTURES if architecture in circle)
    return any(other in circle for circle in ((architecture,), *similar) for other in others)


def median_efficiency(rows: Iterable[Efficiency]) -> Efficiency:
    """Return the median of each constant."""
    rows = list(rows)
    middle = {name: median(getattr(row, name) for row in rows) for name in CONSTANTS}
    return Efficiency(**middle, log_std=max(row.log_std for row in rows))


@cache
def shipped() -> Efficiencies:
    """Return the efficiencies that ship with parframe."""
    text = (files("parframe.price") / "data" / "kernels.json").read_text(encoding="utf-8")
    return read(json.loads(text))


def read(data: Mapping[str, Any]) -> Efficiencies:
    """Read efficiencies from the data that :func:`write` returns."""
    return Efficiencies(
        fitted={
            operator: {
                device: {dtype: Efficiency(**figures) for dtype, figures in dtypes.items()}
                for device, dtypes in devices.items()
            }
            for operator, devices in data["fitted"].items()
        },
        architectures=data["architectures"],
        held_out_log_std=data["held_out_log_std"],
        sources=tuple(data["sources"]),
        widening=data["widening"],
    )


def write(efficiencies: Efficiencies) -> dict[str, object]:
    """Return efficiencies as plain data for a JSON file."""
    return {
        "sources": list(efficiencies.sources),
        "widening": efficiencies.widening,
        "architectures": dict(efficiencies.architectures),
        "held_out_log_std": {
            operator: round(s, 3) for operator, s in efficiencies.held_out_log_std.items()
        },
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
