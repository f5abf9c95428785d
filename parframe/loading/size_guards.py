"""What torch.export took for granted about sizes: a graph must hold at every size of its inputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sympy
import torch
from torch.export import ExportedProgram

from parframe.errors import ParframeError
from parframe.loading.size_limits import Limits, own_limit, runs

_TRIED = (3, 5, 8, 11, 16, 36, 64, 100, 257, 1024, 4095)
"""Sizes that a guard on parity, on multiples or on a number of chunks does not hold for alike."""


_LEAST = 2
"""torch.export does not look at smaller sizes; what holds at 2 holds there."""


_SPARED = 2
"""How many rows a table of positions may keep for something else, such as padding."""


def check_guards(
    exported: ExportedProgram,
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    axes: Mapping[str, Sequence[str]],
) -> Limits:
    """Refuse a program that is right only at some sizes of the axes that may vary.

    A branch of the model's code on a size, or a loop over one, is exported as it went for the
    example. Where it compared a size with a number, the graph keeps that bound, and inputs beyond
    it are refused when it runs; but for an upper bound that is the length of a table of the model,
    beyond which the model itself fails.

    Returns
    -------
    The smallest and the largest sizes for which the program holds.

    Raises
    ------
    ParframeError
        Of kind ``load``, telling what was taken for granted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guards = getattr(exported.module(), "_guards_fn", None)
    ranges = dict(_ranges(exported, axes))
    lengths = {size for tensor in _tensors(module) for size in tensor.shape}
    most: dict[str, int] = {}
    for label, (_, high) in ranges.items():
        beyond = _resized(inputs, axes, {label: int(high) + _SPARED + 1}) if high < math.inf else {}
        table = lengths & {high + spared for spared in range(_SPARED + 1)}
        if high < math.inf and (not table or runs(module, beyond)):
            most[label] = int(high)
    least = {label: int(low) for label, (low, _) in ranges.items() if low > _LEAST}
    if guards is None or not _first_broken(guards, inputs, axes, ranges):
        return Limits(least, most)
    limits = _limits(guards, module, inputs, axes, ranges)
    ranges.update((label, (ranges[label][0], limit)) for label, limit in limits.items())
    reason = _first_broken(guards, inputs, axes, ranges)
    if reason:
        raise _bound(", ".join(ranges), reason)
    return Limits(least, {**most, **limits})


_Ranges: TypeAlias = Mapping[str, tuple[float, float]]


def _first_broken(
    guards: Any, inputs: Mapping[str, Any], axes: Mapping[str, Sequence[str]], ranges: _Ranges
) -> str:
    """The first guard that is broken at one of the sizes that are tried."""
    trials = (_resized(inputs, axes, sizes) for sizes in _trials(ranges))
    return next(filter(None, (_broken(guards, trial) for trial in trials)), "")


def _broken(guards: Any, inputs: Mapping[str, Any]) -> str:
    try:
        guards(*inputs.values())
    except (AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        return reason.removeprefix("Guard failed: ") or type(error).__name__
    return ""


def _limits(
    guards: Any,
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    axes: Mapping[str, Sequence[str]],
    ranges: _Ranges,
) -> dict[str, int]:
    """The largest sizes, each found with the other axes as in the example."""
    found: dict[str, int] = {}
    for label, (_, high) in ranges.items():
        sizes = [
            size
            for name, value in inputs.items()
            for own, size in zip(axes.get(name, ()), getattr(value, "shape", ()), strict=False)
            if own == label
        ]
        if high < math.inf or not sizes:
            continue
        limit = own_limit(
            module,
            lambda size, label=label: _resized(inputs, axes, {label: size}),  # type: ignore[misc]
            lambda given: not _broken(guards, given),
            sizes[0],
        )
        if limit is not None:
            found[label] = limit
    return found


def _ranges(
    exported: ExportedProgram, axes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """The named axes with the sizes that they may have."""
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for label, size in zip(axes.get(node.name, ()), value.shape, strict=False):
            found = exported.range_constraints.get(getattr(getattr(size, "node", None), "expr", 0))
            if label and found is not None:
                yield label, (_number(found.lower), _number(found.upper))


def _number(bound: Any) -> float:
    return float(int(bound)) if isinstance(bound, int | sympy.Integer) else math.inf


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _trials(ranges: Mapping[str, tuple[float, float]]) -> Iterator[dict[str, int]]:
    """Sizes of every axis, each at several of them, no two axes alike."""
    for turn in range(len(_TRIED)):
        yield {
            label: _within(_TRIED[(turn + 4 * place) % len(_TRIED)], *bounds)
            for place, (label, bounds) in enumerate(ranges.items())
        }


def _within(size: int, low: float, high: float) -> int:
    return int(min(max(size, low), max(high - 1, low)))


def _resized(
    inputs: Mapping[str, Any], axes: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Example inputs with other sizes."""
    return {name: _like(value, axes.get(name, ()), sizes) for name, value in inputs.items()}


def _like(value: Any, labels: Sequence[str], sizes: Mapping[str, int]) -> Any:
    """An example input with other sizes: zeros that share one place in memory."""
    if not isinstance(value, torch.Tensor):
        return value
    named = (*labels, *("",) * value.dim())[: value.dim()]
    shape = [sizes.get(label, size) for label, size in zip(named, value.shape, strict=True)]
    return value.new_zeros(()).expand(shape)


def _bound(where: str, guard: str) -> ParframeError:
    return ParframeError(
        "load",
        f"the size of {where}",
        f"the model's code takes another way where not {guard[:160]}",
        "avoid branches and loops on sizes, or leave that axis out of `dynamic`",
    )
