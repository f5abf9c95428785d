"""Tensors for all of a graph's parameters, whole."""

from __future__ import annotations

from typing import Any

import torch

from parframe.graph import OperatorGraph
from parframe.plan import Slices
from parframe.weights.rank_weights import slices
from parframe.weights.sources import RandomWeights


def read_state_dict(
    graph: OperatorGraph,
    weights: Any = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    pickled: bool = False,
    extra: bool = False,
) -> dict[str, torch.Tensor]:
    """A tensor for every parameter of a graph.

    Parameters
    ----------
    graph
        The graph.
    weights
        As for `parframe.weights.read_weights`, without folders of shards; None is random.
    dtype, pickled, extra
        As for `parframe.weights.read_weights`.
    seed
        Of random weights; each depends on this and on its own name alone.

    Returns
    -------
    dict
        By the graph's names of its parameters.

    Raises
    ------
    ParframeError
        Of kind ``weights``, listing every parameter that is missing or has another shape.
    """
    given = RandomWeights(seed) if weights is None or weights == "random" else weights
    wanted = {}
    for name, parameter in graph.parameters.items():
        shape = tuple(int(size) for size in parameter.shape)
        wanted[name] = Slices(name, shape, tuple(((0, size),) for size in shape))
    cpu = torch.device("cpu")
    found = slices(graph, wanted, given, cpu, dtype, pickled=pickled, extra=extra)
    return {name: found[name] for name in wanted}
