"""Guards of torch.export on sizes: a graph must be valid at every size of its inputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sympy
import torch
from torch.export import ExportedProgram

from parframe.errors import ParframeError
from parframe.loading.size_limits import SizeLimits, find_limit, runs

_TRIED = (3, 5, 8, 11, 16, 36, 64, 100, 257, 1024, 4095)
"""Sizes at which guards on parity, on multiples and on a number of chunks give both answers."""

_LEAST = 2
"""The smallest size that torch.export considers; a guard that is true at 2 is true below."""

_RESERVED = 2
"""Rows of a table of positions that a model may reserve for something else, such as padding."""

_Ranges: TypeAlias = Mapping[str, tuple[float, float]]


def check_guards(
    exported: ExportedProgram,
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    dim_names: Mapping[str, Sequence[str]],
) -> SizeLimits:
    """Return the sizes for which a program is valid; refuse one valid only at some sizes.

    A branch on a size in the model's code, or a loop over one, is exported as the example takes
    it. Where the code compares a size with a number, the graph keeps that bound, and running it
    refuses inputs beyond. An upper bound that is the length of a table of the model is not kept,
    because the model itself fails beyond it.

    Raises
    ------
    ParframeError
        Of kind ``load``, naming the guard that is not true at other sizes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guards = getattr(exported.module(), "_guards_fn", None)
    ranges = dict(_size_ranges(exported, dim_names))
    most = _upper_bounds(module, inputs, dim_names, ranges)
    least = {label: int(low) for label, (low, _) in ranges.items() if low > _LEAST}
    if guards is None or not _first_failing(guards, inputs, dim_names, ranges):
        return SizeLimits(least, most)
    limits = _find_limits(guards, module, inputs, dim_names, ranges)
    ranges.update((label, (ranges[label][0], limit)) for label, limit in limits.items())
    guard = _first_failing(guards, inputs, dim_names, ranges)
    if guard:
        raise ParframeError(
            "load",
            f"the size of {', '.join(ranges)}",
            f"the model's code takes another branch at sizes where this is false: {guard[:160]}",
            "remove branches and loops on sizes, or remove that dim from `dynamic`",
        )
    return SizeLimits(least, {**most, **limits})


def _upper_bounds(
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    dim_names: Mapping[str, Sequence[str]],
    ranges: _Ranges,
) -> dict[str, int]:
    """Return the upper bounds of the export beyond which the model itself runs."""
    tensors = (*module.parameters(), *module.buffers())
    lengths = {size for tensor in tensors for size in tensor.shape}
    most: dict[str, int] = {}
    for label, (_, high) in ranges.items():
        if high == math.inf:
            continue
        beyond = _resize(inputs, dim_names, {label: int(high) + _RESERVED + 1})
        is_table = lengths & {high + reserved for reserved in range(_RESERVED + 1)}
        if not is_table or runs(module, beyond):
            most[label] = int(high)
    return most


def _first_failing(
    guards: Any, inputs: Mapping[str, Any], dim_names: Mapping[str, Sequence[str]], ranges: _Ranges
) -> str:
    """Return the first guard that fails at one of the sizes to try, or ``""``."""
    trials = (_resize(inputs, dim_names, sizes) for sizes in _sizes_to_try(ranges))
    return next(filter(None, (_failing(guards, trial) for trial in trials)), "")


def _failing(guards: Any, inputs: Mapping[str, Any]) -> str:
    """Return the guard that fails for inputs, or ``""``."""
    try:
        guards(*inputs.values())
    except (AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        return reason.removeprefix("Guard failed: ") or type(error).__name__
    return ""


def _find_limits(
    guards: Any,
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    dim_names: Mapping[str, Sequence[str]],
    ranges: _Ranges,
) -> dict[str, int]:
    """Find the largest sizes, each with the other dims as in the example."""
    limits: dict[str, int] = {}
    for label, (_, high) in ranges.items():
        sizes = [
            size
            for name, value in inputs.items()
            for dim, size in zip(dim_names.get(name, ()), getattr(value, "shape", ()), strict=False)
            if dim == label
        ]
        if high < math.inf or not sizes:
            continue
        limit = find_limit(
            module,
            lambda size, label=label: _resize(inputs, dim_names, {label: size}),  # type: ignore[misc]
            lambda resized: not _failing(guards, resized),
            sizes[0],
        )
        if limit is not None:
            limits[label] = limit
    return limits


def _size_ranges(
    exported: ExportedProgram, dim_names: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the named dims with the smallest and the largest size that each may have."""
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for label, size in zip(dim_names.get(node.name, ()), value.shape, strict=False):
            expression = getattr(getattr(size, "node", None), "expr", 0)
            bounds = exported.range_constraints.get(expression)
            if label and bounds is not None:
                yield label, (_number(bounds.lower), _number(bounds.upper))


def _number(bound: Any) -> float:
    return float(int(bound)) if isinstance(bound, int | sympy.Integer) else math.inf


def _sizes_to_try(ranges: _Ranges) -> Iterator[dict[str, int]]:
    """Yield sizes of all dims, each dim of another size."""
    for turn in range(len(_TRIED)):
        yield {
            label: int(min(max(_TRIED[(turn + 4 * place) % len(_TRIED)], low), max(high - 1, low)))
            for place, (label, (low, high)) in enumerate(ranges.items())
        }


def _resize(
    inputs: Mapping[str, Any], dim_names: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Return example inputs with other sizes: each is one zero, expanded."""
    resized = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            labels = (*dim_names.get(name, ()), *("",) * value.dim())
            shape = [sizes.get(dim, size) for dim, size in zip(labels, value.shape, strict=False)]
            resized[name] = value.new_zeros(()).expand(shape)
    return resized
