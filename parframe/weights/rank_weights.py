"""Weights of one rank, which are its slices alone, and of the whole model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from parframe.graph import OperatorGraph
from parframe.plan import Plan, Slices
from parframe.weights.compatibility import MatchedWeights, match_weights
from parframe.weights.file_reader import Progress
from parframe.weights.random_weights import RandomWeights, is_random, random_slices
from parframe.weights.rank_files import is_rank_folder, read_rank_file
from parframe.weights.slice_loading import load_slices
from parframe.weights.sources import WeightSource, open_source
from parframe.weights.strided_views import View
from parframe.weights.target_dtypes import computed_slices


def read_weights(
    plan: Plan,
    rank: int,
    weights: Any,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    pickled: bool = False,
    extra: bool = False,
    graph_dtypes: bool = False,
) -> dict[str, torch.Tensor]:
    """Read the weights of one rank, by the device's names of its parameters.

    Only the bytes of the rank's slices are read from files, in file order, straight into the
    tensors that are returned. Names of equal slices share memory. Tensors of a state dict or a
    module are sliced: where device and dtype agree, a slice shares memory with the given tensor,
    and keeps all of it alive.

    - ``weights``: a folder of safetensors (or one file), a folder that `parframe shard` wrote for
      this plan, a state dict, a module, the result of `open_weights`, or ``"random"`` or
      `RandomWeights`. Random numbers are those of the whole model: each parameter is made whole,
      sliced and freed.
    - ``dtype``: the dtype of floating-point weights; None keeps the stored one. A buffer of 32 bits
      or more that the model computes itself keeps at least 32.
    - ``progress``: called with the bytes that are read, and the total.
    - ``pickled``: whether ``.bin`` or ``.pt`` files may be read.
    - ``extra``: whether tensors that are not in the model are ignored; see
      `parframe.weights.compatibility`.
    - ``graph_dtypes``: whether floating-point weights are converted to the dtypes in the graph, or
      to `dtype` where it is wider.

    Raises
    ------
    ParframeError
        Of kind ``weights``. Before anything is read, it lists all tensors that are missing, of
        another shape, unknown or not convertible. Also if a file cannot be read.
    """
    wanted = plan.weights(rank)
    torch_device = torch.device(device)
    if isinstance(weights, str | os.PathLike) and is_rank_folder(Path(weights)):
        source, views = read_rank_file(plan, rank, Path(weights))
        stored = {name: (view, _all_slices(view)) for name, view in views.items()}
        tensors = load_slices(
            plan.graph, wanted, stored, source, torch_device, dtype, progress, graph_dtypes
        )
        tensors.update(computed_slices(plan.graph, wanted, torch_device, dtype))
    else:
        tensors = read_slices(
            plan.graph, wanted, weights, torch_device, dtype, progress, pickled, extra, graph_dtypes
        )
    return {name: tensors[name] for name in wanted}


@attrs.frozen
class OpenedWeights:
    """Weights whose names and shapes are known, to be read for many ranks.

    - ``matched``: the tensors that each parameter of the graph is made of, and remarks.
    """

    source: WeightSource
    matched: MatchedWeights


def open_weights(
    graph: OperatorGraph, weights: Any, pickled: bool = False, extra: bool = False
) -> OpenedWeights:
    """Find the parameters of a graph in weights, so that `read_weights` can read them many times.

    Raise ``ParframeError`` of kind ``weights``, as for `read_weights`.
    """
    source = open_source(weights, pickled)
    return OpenedWeights(source, match_weights(graph, source, extra))


def read_slices(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    weights: Any,
    device: torch.device,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    pickled: bool = False,
    extra: bool = False,
    graph_dtypes: bool = False,
) -> dict[str, torch.Tensor]:
    """Read slices of a graph's parameters, by any names; see `read_weights`."""
    if is_random(weights):
        seed = weights.seed if isinstance(weights, RandomWeights) else 0
        tensors = random_slices(graph, wanted, seed, device, dtype, graph_dtypes)
    else:
        opened = weights if isinstance(weights, OpenedWeights) else None
        opened = opened or open_weights(graph, weights, pickled, extra)
        views = opened.matched.views
        stored = {n: (views[part.whole], part) for n, part in wanted.items() if part.whole in views}
        tensors = load_slices(
            graph, wanted, stored, opened.source, device, dtype, progress, graph_dtypes
        )
    tensors.update(computed_slices(graph, wanted, device, dtype))
    return tensors


def _all_slices(view: View) -> Slices:
    """Return slices that take all of a view."""
    return Slices("", view.shape, tuple(((0, size),) for size in view.shape))


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

    Raise ``ParframeError`` of kind ``weights``, listing every parameter that is missing or has
    another shape.
    """
    given = RandomWeights(seed) if weights is None or weights == "random" else weights
    wanted = {}
    for name, parameter in graph.parameters.items():
        shape = tuple(int(size) for size in parameter.shape)
        wanted[name] = Slices(name, shape, tuple(((0, size),) for size in shape))
    cpu = torch.device("cpu")
    tensors = read_slices(graph, wanted, given, cpu, dtype, pickled=pickled, extra=extra)
    return {name: tensors[name] for name in wanted}
