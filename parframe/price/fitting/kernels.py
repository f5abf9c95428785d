"""Fits the efficiencies of kernels to measured times of single kernels, and tells how well."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import attrs

from parframe.price.attention import attention_time
from parframe.price.chips import Chip, Gpu, chip
from parframe.price.dtypes import BYTES, SIXTEEN
from parframe.price.efficiency import Efficiencies, Efficiency, Operator
from parframe.price.experts import Routing, experts_time
from parframe.price.kernels import pointwise_time, product_time
from parframe.price.work import Attention, Experts, Step

TABLES = ("aic_gemm.csv", "vidur_compute_ops.csv", "aic_attention.csv", "aic_moe.csv")
"""The files of measured times that are read from a folder."""

NAMES: Mapping[str, str] = {"a100": "a100_sxm_80gb", "a100_sxm": "a100_sxm_80gb"}
"""Names of GPUs in the tables that the catalogue has another name for."""

RESIDENT = 0.25
"""Rows are left out of the fit whose weights are smaller than this part of the last cache: a
benchmark repeats a kernel and finds them there, a model never does."""

NEGLIGIBLE = 0.025
"""Caches of keys and values that are smaller than this part of the last cache show the overhead of
a decode step, wherever they are read from."""

TUNED = 1.25
"""Implementations of experts are fitted whose times are at most so much longer, by the median over
equal rows, than the fastest of the architecture; others run without a choice of tiles."""

SOFT = 0.05
"""Error from which rows count less than squared: times jump where a library's choice does."""


@attrs.frozen(eq=False)
class Row:
    """A measured kernel: ``time`` gives its seconds from an efficiency."""

    operator: Operator
    kind: str
    on: Chip
    dtype: str
    seconds: float
    time: Callable[[Efficiency], float]
    implementation: str
    like: tuple[object, ...] = ()
    fits: bool = True


@attrs.frozen
class Error:
    """How far times are off for the rows of an operator, device, dtype and implementation."""

    operator: str
    kind: str
    device: str
    dtype: str
    implementation: str
    rows: int
    median: float
    mean: float
    bias: float
    unseen_median: float
    unseen_mean: float
    inside: float


def read_rows(folder: Path, devices: Mapping[str, Gpu]) -> list[Row]:
    """Read the tables of a folder, for the devices of the catalogue that are given by name."""
    readers = (_gemm, _layer_operators, _attention, _experts)
    rows: list[Row] = []
    for name, reader in zip(TABLES, readers, strict=True):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                device = devices.get(NAMES.get(line["gpu"], line["gpu"]))
                if device is not None:
                    rows.extend(reader(line, chip(device)))
    return rows


def _gemm(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    dtype = {"bfloat16": "bf16"}.get(line["dtype"], line["dtype"])
    sizes = (int(line["m"]), int(line["k"]), int(line["n"]))
    yield _product_row(on, dtype, sizes, float(line["latency_us"]) * 1e-6, line["framework"])


def _product_row(
    on: Chip, dtype: str, sizes: tuple[int, int, int], seconds: float, implementation: str
) -> Row:
    weight = BYTES[dtype]
    return Row(
        operator="product",
        kind="product",
        on=on,
        dtype=dtype,
        seconds=seconds,
        time=lambda found: product_time.__wrapped__(on, found, *sizes, weight, dtype),
        implementation=implementation,
        fits=sizes[1] * sizes[2] * weight > RESIDENT * on.cache,
    )


def _layer_operators(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    """Read an operator of a layer, timed on one GPU that holds its shard under ``tp``."""
    degree, hidden = int(line["tp"]), int(line["n_embd"])
    heads, kv_heads = int(line["n_head"]), int(line["n_kv_head"])
    width, ffn = hidden // heads, int(line["n_expanded_embd"]) // degree
    tokens, seconds = int(line["num_tokens"]), float(line["median_ms"]) * 1e-3
    queries = heads // degree * width
    products = {
        "attn_pre_proj": (hidden, queries + 2 * max(1, kv_heads // degree) * width),
        "attn_post_proj": (queries, hidden),
        "mlp_up_proj": (hidden, 2 * ffn),
        "mlp_down_proj": (ffn, hidden),
    }
    moved = {"add": 3 * hidden, "input_layernorm": 2 * hidden, "mlp_act": 3 * ffn}
    kind = line["op"]
    if kind in products:
        yield _product_row(on, "bf16", (tokens, *products[kind]), seconds, "vidur")
    elif kind in moved and seconds > 0:
        size = moved[kind] * tokens * SIXTEEN
        yield Row(
            operator="pointwise",
            kind=kind,
            on=on,
            dtype="bf16",
            seconds=seconds,
            time=lambda found: pointwise_time(size, on, found),
            implementation="vidur",
        )


def _attention(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    heads, kv_heads = int(line["heads"]), int(line["kv_heads"])
    width = int(line["head_dim"])
    kernel = Attention(heads, kv_heads, width, width, kept=2 * kv_heads * width)
    new, keys = int(line["isl"]), int(line["kv_len"])
    step = Step(int(line["batch"]), new, keys - new)
    held = step.rows * keys * kernel.kept * SIXTEEN
    prompt = line["op"] == "context_attention"
    # a benchmark reads a small cache from the chip's last cache again and again
    resident = held < on.cache and not prompt
    yield Row(
        operator="attention",
        kind="prompt" if prompt else "decode, resident" if resident else "decode",
        on=on,
        dtype="bf16",
        seconds=float(line["latency_us"]) * 1e-6,
        time=lambda found: attention_time(kernel, step, on, found, SIXTEEN),
        implementation=line["kernel"],
        fits=not resident or held < NEGLIGIBLE * on.cache,
    )


def _experts(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    dtype = {"bfloat16": "bf16"}.get(line["dtype"], line["dtype"])
    experts, chosen = int(line["experts"]), int(line["topk"])
    kernel = Experts(
        held=experts // int(line["moe_ep"]),
        experts=experts,
        chosen=chosen,
        hidden=int(line["hidden"]),
        ffn=int(line["inter"]) // int(line["moe_tp"]),
    )
    law = line["distribution"]
    routing = Routing(exact=True) if law == "balanced" else Routing(float(law.split("_")[-1]))
    tokens, weight = int(line["tokens"]), BYTES[dtype]
    yield Row(
        operator="experts",
        kind="experts",
        on=on,
        dtype=dtype,
        seconds=float(line["latency_us"]) * 1e-6,
        time=lambda found: experts_time.__wrapped__(
            kernel, tokens, on, found, weight, dtype, routing
        ),
        implementation=f"{line['framework']} {line['kernel']}",
        like=(kernel, tokens, routing),
    )


def fit(rows: Sequence[Row], sources: Iterable[str] = TABLES) -> Efficiencies:
    """Fit efficiencies to rows, for each operator, device and dtype apart."""
    fitted: dict[str, dict[str, dict[str, Efficiency]]] = {}
    architectures = {}
    for (operator, on, dtype), group in _groups(_tuned(rows)).items():
        found = _fitted(operator, group)
        fitted.setdefault(operator, {}).setdefault(on.key, {})[dtype] = found
        architectures[on.key] = on.architecture
    seen = Efficiencies(fitted, architectures, {}, tuple(sources))
    return attrs.evolve(seen, unseen=_unseen(seen, rows))


def _groups(rows: Iterable[Row]) -> dict[tuple[Operator, Chip, str], list[Row]]:
    groups: dict[tuple[Operator, Chip, str], list[Row]] = {}
    for row in rows:
        if row.fits:
            groups.setdefault((row.operator, row.on, row.dtype), []).append(row)
    return groups


def _tuned(rows: Sequence[Row]) -> list[Row]:
    """Leave out the rows of implementations that are far from the best of their architecture."""
    plain = Efficiency(20e-6, 0.8, 0.7)
    ratios: dict[tuple[str, str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        if row.like:
            of = (row.operator, row.on.architecture, row.dtype)
            times = ratios.setdefault(of, {}).setdefault((row.on.key, row.implementation), [])
            times.append(row.seconds / row.time(plain))
    kept = {
        (*of, *name)
        for of, implementations in ratios.items()
        for name, found in implementations.items()
        if median(found) <= TUNED * min(median(other) for other in implementations.values())
    }
    return [
        row
        for row in rows
        if not row.like
        or (row.operator, row.on.architecture, row.dtype, row.on.key, row.implementation) in kept
    ]


NONE = Efficiency(overhead=0.0, memory=1.0)
"""A device that reaches all of its figures."""

FASTEST = 1.5e-6
"""Seconds that no kernel is faster than, from the first instruction to the last write."""

FREE: Mapping[Operator, Mapping[str, tuple[float, float, float]]] = {
    "product": {
        "overhead": (3e-6, FASTEST, 3e-5),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.8, 0.1, 1.3),
        "sustained": (0.1, 0, 1),
    },
    "attention": {
        "overhead": (1e-5, FASTEST, 5e-5),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.6, 0.1, 1.3),
        "start": (1e-5, FASTEST, 5e-5),
        "tile": (256, 0, 2048),
        "merge": (5e-7, 0, 5e-6),
    },
    "experts": {
        "overhead": (2e-5, FASTEST, 2e-4),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.6, 0.05, 1.3),
    },
    "pointwise": {"overhead": (3e-6, FASTEST, 3e-5), "memory": (0.7, 0.1, 1.1)},
}
"""What is fitted of each operator: where the search starts, and its bounds."""


def _fitted(operator: Operator, rows: Sequence[Row]) -> Efficiency:
    """Find the figures with the least error of logarithms, large errors counted less."""
    import numpy
    from scipy.optimize import least_squares

    free = FREE[operator]
    scale = [start for start, _, _ in free.values()]
    measured = numpy.array([row.seconds for row in rows])

    def efficiency(at: Sequence[float]) -> Efficiency:
        figures: dict[str, Any] = {
            name: float(x * s) for name, x, s in zip(free, at, scale, strict=True)
        }
        return attrs.evolve(NONE, **figures)

    def off(at: Sequence[float]) -> object:
        found = efficiency(at)
        return numpy.log(numpy.array([row.time(found) for row in rows]) / measured)

    bounds = [
        [edge[side] / s for edge, s in zip(free.values(), scale, strict=True)] for side in (1, 2)
    ]
    solved = least_squares(
        off, [1.0] * len(free), bounds=bounds, loss="soft_l1", f_scale=SOFT, diff_step=1e-3
    )
    found = efficiency(solved.x)
    return attrs.evolve(found, spread=spread(rows, found), rows=len(rows))


def spread(rows: Sequence[Row], found: Efficiency) -> float:
    """Return the standard deviation that the middle 80 % of logarithms of errors have."""
    off = sorted(abs(math.log(row.seconds / row.time(found))) for row in rows)
    return off[min(len(off) - 1, int(0.8 * len(off)))] / 1.2816


def _unseen(seen: Efficiencies, rows: Sequence[Row]) -> dict[str, float]:
    """Return the spread of each operator's rows, each by the figures of the other devices."""
    spreads: dict[str, list[float]] = {}
    for (operator, on, dtype), group in _groups(_tuned(rows)).items():
        found, _ = seen.find(operator, on, dtype, without=on.key)
        if found.rows or any(device != on.key for device in seen.fitted[operator]):
            spreads.setdefault(operator, []).append(spread(group, found))
    return {operator: mean(found) for operator, found in spreads.items()}


def summed(efficiencies: Efficiencies, rows: Sequence[Row]) -> list[Error]:
    """Return how far times are off, by operator, device and dtype alone, as :func:`errors` does."""
    return errors(
        efficiencies, [attrs.evolve(row, kind="all", implementation="all") for row in rows]
    )


def errors(efficiencies: Efficiencies, rows: Sequence[Row]) -> list[Error]:
    """Return how far times are off, by operator, kind, device, dtype and implementation.

    ``unseen`` errors use the figures of the other devices only. ``inside`` is the part of the rows
    that the interval of 80 % holds. Rows that were left out of the fit count as others do.
    """
    groups: dict[tuple[str, str, str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.operator, row.kind, row.on.key, row.dtype, row.implementation)
        groups.setdefault(key, []).append(row)
    return [_error(efficiencies, key, group) for key, group in sorted(groups.items())]


def _error(
    efficiencies: Efficiencies, key: tuple[str, str, str, str, str], rows: Sequence[Row]
) -> Error:
    first = rows[0]
    own, _ = efficiencies.find(first.operator, first.on, first.dtype)
    other, _ = efficiencies.find(first.operator, first.on, first.dtype, without=first.on.key)
    off = [row.time(own) / row.seconds - 1 for row in rows]
    unseen = [abs(row.time(other) / row.seconds - 1) for row in rows]
    reach = 1.2816 * own.spread
    return Error(
        *key,
        rows=len(rows),
        median=median(map(abs, off)),
        mean=mean(map(abs, off)),
        bias=median(off),
        unseen_median=median(unseen),
        unseen_mean=mean(unseen),
        inside=mean(abs(math.log1p(x)) <= reach for x in off),
    )
