"""The weights of one rank: only its slices, straight into tensors of its device and dtype."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs
import torch

from parframe.graph import OperatorGraph, Parameter
from parframe.loading.buffer_data import decode_tensor
from parframe.plan import Plan, Slices
from parframe.weights.compatibility import MatchedWeights, fit
from parframe.weights.file_reader import Progress, ReadJob, in_file_order, open_reader
from parframe.weights.random_weights import positive_parameters, random_parameter
from parframe.weights.rank_files import is_rank_folder, read_shard
from parframe.weights.safetensors_header import StoredTensor
from parframe.weights.sources import WeightSource, is_random, origin_of, seed_of
from parframe.weights.strided_views import View, slice_pieces, whole_view

_ALIGNED = 64
"""Tensors in a block begin at multiples of this, which is as much as a processor reads at once."""


def read_weights(
    plan: Plan,
    rank: int,
    weights: Any,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    pickled: bool = False,
    extra: bool = False,
    declared: bool = False,
) -> dict[str, torch.Tensor]:
    """What a rank holds of the model's weights.

    Of a file only the bytes of the rank's slices are read, in the order in which they lie there,
    straight into the tensors that are returned. Names of the device that are slices of one tensor
    and equal share memory. Tensors of a state dict or a module are taken as slices: where device
    and dtype agree, a slice shares memory with the tensor that was given, and keeps all of it
    alive.

    Parameters
    ----------
    plan
        The plan.
    rank
        A rank of its mesh.
    weights
        A folder of safetensors (or one file), a folder that `parframe shard` wrote for this plan,
        a state dict, a module, what `open_weights` made of these, ``"random"`` or `RandomWeights`
        for random weights: the same numbers as those of the whole model, of which each parameter
        is drawn whole, cut and freed.
    device
        The torch device to put them on.
    dtype
        What floating-point weights are converted to; as they are stored, if None. A buffer of
        32 bits or more that the model itself computes keeps at least 32.
    progress
        Told the bytes that were read and those that there are in all.
    pickled
        Whether ``.bin`` or ``.pt`` files may be read.
    extra
        Whether tensors that are not in the model are ignored; see `parframe.weights.compatibility`.
    declared
        Whether floating-point weights become what the graph says of each, or `dtype` where that is
        wider: what the graph can be run with, however they are stored.

    Returns
    -------
    dict of str to torch.Tensor
        By the device's own names of its parameters.

    Raises
    ------
    ParframeError
        Of kind ``weights``: before anything is read with a list of all that is missing, misshapen,
        unknown or of another kind of number; or if a file cannot be read.
    """
    wanted = plan.weights(rank)
    place = torch.device(device)
    if isinstance(weights, str | os.PathLike) and is_rank_folder(Path(weights)):
        origin, views = read_shard(plan, rank, Path(weights))
        stored = {name: (view, _whole(view)) for name, view in views.items()}
        found = _gathered(plan.graph, wanted, stored, origin, place, dtype, progress, declared)
        found.update(_computed(plan.graph, wanted, place, dtype))
    else:
        found = slices(
            plan.graph, wanted, weights, place, dtype, progress, pickled, extra, declared
        )
    return {name: found[name] for name in wanted}


@attrs.frozen
class OpenedWeights:
    """Weights of which all is known but their contents, to be read for many ranks.

    Parameters
    ----------
    origin
        Where they are.
    fit
        The tensors that each parameter of the graph is made of, and remarks.
    """

    origin: WeightSource
    fit: MatchedWeights


def open_weights(
    graph: OperatorGraph, weights: Any, pickled: bool = False, extra: bool = False
) -> OpenedWeights:
    """Find the parameters of a graph in weights, so that `read_weights` can read them many times.

    Raises
    ------
    ParframeError
        Of kind ``weights``, as for `read_weights`.
    """
    origin = origin_of(weights, pickled)
    return OpenedWeights(origin, fit(graph, origin, extra))


def slices(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    weights: Any,
    place: torch.device,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    pickled: bool = False,
    extra: bool = False,
    declared: bool = False,
) -> dict[str, torch.Tensor]:
    """Slices of a graph's parameters, by any names; for the rest see `read_weights`."""
    if is_random(weights):
        found = _drawn(graph, wanted, seed_of(weights), place, dtype, declared)
    else:
        given = weights if isinstance(weights, OpenedWeights) else None
        given = given or open_weights(graph, weights, pickled, extra)
        views = given.fit.views
        stored = {n: (views[part.whole], part) for n, part in wanted.items() if part.whole in views}
        found = _gathered(graph, wanted, stored, given.origin, place, dtype, progress, declared)
    found.update(_computed(graph, wanted, place, dtype))
    return found


def _whole(view: View) -> Slices:
    return Slices("", view.shape, tuple(((0, size),) for size in view.shape))


def _gathered(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    stored: Mapping[str, tuple[View, Slices]],
    origin: WeightSource,
    place: torch.device,
    dtype: torch.dtype | None,
    progress: Progress | None,
    declared: bool,
) -> dict[str, torch.Tensor]:
    """The slices of views of stored tensors, those that are the same once."""
    keys = {
        name: (view, part, _kind(view.dtype, graph.parameters[wanted[name].whole], dtype, declared))
        for name, (view, part) in stored.items()
    }
    different = {(view, part.runs, kind): (view, part, kind) for view, part, kind in keys.values()}
    ready = {key: _in_memory(*one, origin, place) for key, one in different.items()}
    missing = [key for key, tensor in ready.items() if tensor is None]
    shapes = [(different[key][1].local_shape, key[2]) for key in missing]
    targets = dict(zip(missing, in_one_block(shapes, place), strict=True))
    jobs: list[ReadJob] = []
    for key, target in targets.items():
        view, part, _ = different[key]
        jobs.extend(_begun(view, part, origin, target))
    with open_reader(sum(job.bytes for job in jobs), progress) as reading:
        for job in in_file_order(jobs):
            reading.run(job)
    made = {**ready, **targets}
    found = {name: made[view, part.runs, kind] for name, (view, part, kind) in keys.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def in_one_block(
    shapes: Sequence[tuple[Sequence[int], torch.dtype]], place: torch.device
) -> list[torch.Tensor]:
    """Empty tensors; on the CPU side by side in memory, which large pages then cover nearly whole.

    To PyTorch each is a tensor by itself: a compiler would take parts of one for aliases.
    """
    if place.type != "cpu":
        return [torch.empty(tuple(shape), dtype=kind, device=place) for shape, kind in shapes]
    sizes = [math.prod(shape) * kind.itemsize for shape, kind in shapes]
    ends = list(accumulate(-(-size // _ALIGNED) * _ALIGNED for size in sizes))
    block = torch.empty(ends[-1] if ends else 0, dtype=torch.uint8).numpy()
    return [
        torch.from_numpy(block[start : start + size]).view(kind).view(tuple(shape))
        for (shape, kind), size, start in zip(shapes, sizes, [0, *ends[:-1]], strict=False)
    ]


def _in_memory(
    view: View, part: Slices, kind: torch.dtype, origin: WeightSource, place: torch.device
) -> torch.Tensor | None:
    """Slices of a tensor that was given itself; None if they must be put together."""
    first = view.pieces[0].tensor if view.pieces else ""
    whole = origin.tensors.get(first)
    if isinstance(whole, torch.Tensor) and view == whole_view(first, view.shape, view.dtype):
        taken: torch.Tensor = part.take(whole)
        return taken.to(place, kind)
    return None


def _begun(
    view: View, part: Slices, origin: WeightSource, target: torch.Tensor
) -> Iterator[ReadJob]:
    """Fill a tensor with slices: from memory at once; from files later, by the jobs."""
    for cut in slice_pieces(view, part.runs):
        source = origin.tensors[cut.piece.tensor]
        if isinstance(source, StoredTensor):
            yield ReadJob(source, cut, target)
        else:
            piece = cut.piece
            flat = source.contiguous().as_strided(piece.shape, piece.strides, piece.offset)
            taken = Slices(piece.tensor, piece.shape, cut.runs).take(flat)
            target[cut.box] = taken.to(target.device)


def _kind(
    stored: str, parameter: Parameter, dtype: torch.dtype | None, declared: bool
) -> torch.dtype:
    """The dtype that a stored tensor becomes."""
    own: torch.dtype = getattr(torch, stored)
    wanted: torch.dtype = getattr(torch, parameter.dtype)
    if not own.is_floating_point:
        return wanted
    if declared:
        return wanted if dtype is None else torch.promote_types(wanted, dtype)
    return dtype or own


def _drawn(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    seed: int,
    place: torch.device,
    dtype: torch.dtype | None,
    declared: bool,
) -> dict[str, torch.Tensor]:
    """Slices of random parameters, each drawn whole and freed before the next."""
    positive = positive_parameters(graph)
    by_whole: dict[str, list[str]] = {}
    for name, part in wanted.items():
        by_whole.setdefault(part.whole, []).append(name)
    found: dict[str, torch.Tensor] = {}
    for whole, names in by_whole.items():
        parameter = graph.parameters[whole]
        if parameter.data is not None:
            continue
        drawn = random_parameter(parameter, seed, positive=whole in positive)
        kind = _kind(str(drawn.dtype).removeprefix("torch."), parameter, dtype, declared)
        made: dict[Any, torch.Tensor] = {}
        for name in names:
            part = wanted[name]
            if part.runs not in made:
                made[part.runs] = _own(part.take(drawn), drawn).to(place, kind)
            found[name] = made[part.runs]
    return found


def _own(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A part that does not keep the whole alive."""
    return part if part.numel() == whole.numel() else part.clone()


def _computed(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    place: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, torch.Tensor]:
    """Slices of the buffers that the model itself computes; the graph carries them."""
    found = {}
    for name, part in wanted.items():
        parameter = graph.parameters[part.whole]
        if parameter.data is not None:
            found[name] = part.take(as_computed(decode_tensor(parameter), dtype)).to(place)
    return found


def as_computed(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A computed buffer beside weights of this dtype: of 32 bits or more it keeps at least 32."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    narrow = dtype.itemsize < 4 <= tensor.dtype.itemsize
    return tensor.to(torch.float32 if narrow else dtype)
