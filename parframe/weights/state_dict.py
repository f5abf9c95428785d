"""Whole tensors for all of a graph's parameters."""

from __future__ import annotations

from typing import Any

import torch

from parframe.graph import OperatorGraph
from parframe.plan import Slices
from parframe.weights.random_weights import RandomWeights
from parframe.weights.rank_weights import read_slices


def read_state_dict(
    graph: OperatorGraph,
    weights: Any = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    pickled: bool = False,
    extra: bool = False,
) -> dict[str, torch.Tensor]:
    """Read a tensor for every parameter of a graph, by its name in the graph.

    - ``weights``: as for `parframe.weights.read_weights`, without folders of shards; None is
      random.
    - ``dtype``, ``pickled``, ``extra``: as for `parframe.weights.read_weights`.
    - ``seed``: the seed of random weights, if ``weights`` is None or ``"random"``.

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
    tensors = read_slices(graph, wanted, given, cpu, dtype, pickled=pickled, extra=extra)
    return {name: tensors[name] for name in wanted}
