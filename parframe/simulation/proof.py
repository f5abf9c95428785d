"""Result of verifying a plan by execution."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.simulation.traffic import Traffic


@attrs.frozen
class Difference:
    """The first operator, in the model's order, whose result differs from the model's.

    Parameters
    ----------
    operator
        Its name in the devices' programs.
    module, source
        The module path and the line of the model's code that it comes from.
    ranks
        The devices on which it differs.
    error
        The largest relative error.
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

    Parameters
    ----------
    ok
        True if every part of every output on every device is within the bound.
    max_error
        The largest absolute difference, relative to the largest number of the output.
    bound
        The largest allowed value of ``max_error``.
    dtype
        The dtype of the computation.
    first_difference
        The first operator that differs, if one does.
    outputs
        Every output of every trial.
    communication
        The communication of the first trial, by mesh axis.
    """

    ok: bool
    max_error: float
    bound: float
    dtype: str
    first_difference: Difference | None
    outputs: tuple[OutputComparison, ...]
    communication: tuple[Traffic, ...]
