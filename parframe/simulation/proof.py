"""Result of verifying a plan by execution."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.simulation.traffic import Traffic


@attrs.frozen
class Difference:
    """The first operator, in the model's order, whose result differs from the model's.

    ``operator`` is its name in the devices' programs; ``module`` and ``source`` are the module path
    and the line of the model's code. ``error`` is the largest relative error on ``ranks``.
    """

    operator: str
    module: str
    source: str
    ranks: tuple[int, ...]
    error: float


@attrs.frozen
class OutputComparison:
    """Comparison of one output of one trial with the unpartitioned model's, in all its parts."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sizes: Mapping[str, int]
    parts: int
    max_error: float


@attrs.frozen
class Proof:
    """Verdict on a plan that was executed and compared with the unpartitioned model.

    It is ``ok`` if every part of every output on every device is within ``bound``. Errors are the
    largest absolute difference, relative to the largest number of the output. ``outputs`` are those
    of every trial; ``communication`` is that of the first trial, by mesh axis.
    """

    ok: bool
    max_error: float
    bound: float
    dtype: str
    first_difference: Difference | None
    outputs: tuple[OutputComparison, ...]
    communication: tuple[Traffic, ...]
