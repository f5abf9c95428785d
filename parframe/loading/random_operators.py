"""Operators that draw random numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from parframe.errors import ParframeError
from parframe.graph import Arg, Operator
from parframe.loading.flat_graph import FlatGraph
from parframe.ops.schema import find_overload

_DETERMINISTIC: Mapping[str, Arg] = {"dropout_p": 0.0, "train": False, "training": False, "p": 0.0}
"""Arguments with which an operator that can draw random numbers draws none."""


def is_random(operator: Operator) -> bool:
    """Return whether an operator draws random numbers, so that two calls of it differ."""
    try:
        tags = find_overload(operator.target).tags
    except ParframeError:  # an archive may name an operator that is not registered here
        return False
    return torch.Tag.nondeterministic_seeded in tags and not any(
        operator.args.get(slot) == value for slot, value in _DETERMINISTIC.items()
    )


def check_deterministic(graph: FlatGraph) -> None:
    """Refuse a graph that draws random numbers.

    Raises
    ------
    ParframeError
        Of kind ``load``, naming the first such operator.
    """
    for operator in graph.operators:
        if is_random(operator):
            raise ParframeError(
                "load",
                f"{operator.module or 'the model'} ({operator.source})",
                f"{operator.target} draws random numbers, so that two runs would differ",
                "set the model to eval mode, or make the random numbers an input",
            )
