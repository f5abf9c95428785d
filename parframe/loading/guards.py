"""What torch.export took for granted about sizes: a graph must hold at every size of its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram

from parframe.errors import ParframeError

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
) -> None:
    """Refuse a program that is right only at some sizes of the axes that may vary.

    A branch of the model's code on a size, or a loop over one, is exported as it went for the
    example. An upper bound is let pass where it is the length of a table of the model: beyond it
    the model itself has no numbers.

    Raises
    ------
    ParframeError
        Of kind ``load``, telling what was taken for granted.
    """
    guards = getattr(exported.module(), "_guards_fn", None)
    ranges = dict(_ranges(exported, axes))
    lengths = {size for tensor in _tensors(module) for size in tensor.shape}
    for label, (low, high) in ranges.items():
        if low > _LEAST:
            raise _bound(label, f"{label} >= {low:g}")
        if high < math.inf and not lengths & {high + spared for spared in range(_SPARED + 1)}:
            raise _bound(label, f"{label} <= {high:g}")
    if guards is None:
        return
    for sizes in _trials(ranges):
        given = [_resized(value, axes.get(name, ()), sizes) for name, value in inputs.items()]
        try:
            guards(*given)
        except (AssertionError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise _bound(", ".join(ranges), reason.removeprefix("Guard failed: ")) from error


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


def _resized(value: Any, labels: Sequence[str], sizes: Mapping[str, int]) -> Any:
    """An example input with other sizes, and without memory."""
    if not isinstance(value, torch.Tensor):
        return value
    named = (*labels, *("",) * value.dim())[: value.dim()]
    shape = [sizes.get(label, size) for label, size in zip(named, value.shape, strict=True)]
    return torch.empty(shape, dtype=value.dtype, device="meta")


def _bound(where: str, guard: str) -> ParframeError:
    return ParframeError(
        "load",
        f"the size of {where}",
        f"the model's code takes another way where not {guard[:160]}",
        "avoid branches and loops on sizes, or leave that axis out of `dynamic`",
    )
