"""Loading of slices of stored tensors into tensors of a device and dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch

from parframe.graph import OperatorGraph
from parframe.plan import Slices
from parframe.weights.file_reader import Progress, ReadJob, open_reader
from parframe.weights.safetensors_header import StoredTensor
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import View, slice_pieces, whole_view
from parframe.weights.target_dtypes import target_dtype

_ALIGNMENT = 64
"""Alignment of tensors in a block, in bytes: what a processor loads at once."""


def load_slices(
    graph: OperatorGraph,
    wanted: Mapping[str, Slices],
    stored: Mapping[str, tuple[View, Slices]],
    source: WeightSource,
    device: torch.device,
    dtype: torch.dtype | None,
    progress: Progress | None,
    graph_dtypes: bool,
) -> dict[str, torch.Tensor]:
    """Load slices of views of stored tensors; equal ones are loaded once and share memory.

    ``stored`` has for each name the view, and the slices of it.
    """
    keys = {}
    for name, (view, part) in stored.items():
        parameter = graph.parameters[wanted[name].whole]
        keys[name] = view, part, target_dtype(view.dtype, parameter, dtype, graph_dtypes)
    different = {(view, part.runs, to): (view, part, to) for view, part, to in keys.values()}
    in_memory = {key: _take_in_memory(*one, source, device) for key, one in different.items()}
    missing = [key for key, tensor in in_memory.items() if tensor is None]
    shapes = [(different[key][1].local_shape, key[2]) for key in missing]
    targets = dict(zip(missing, allocate_adjacent(shapes, device), strict=True))
    jobs: list[ReadJob] = []
    for key, target in targets.items():
        view, part, _ = different[key]
        jobs.extend(_fill(view, part, source, target))
    with open_reader(sum(job.bytes for job in jobs), progress) as reader:
        for job in sorted(jobs, key=lambda job: (str(job.stored.file), job.stored.start)):
            reader.run(job)
    loaded = {**in_memory, **targets}
    tensors = {name: loaded[view, part.runs, to] for name, (view, part, to) in keys.items()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def allocate_adjacent(
    shapes: Sequence[tuple[Sequence[int], torch.dtype]], device: torch.device
) -> list[torch.Tensor]:
    """Return empty tensors; on the CPU they are adjacent in memory, so that large pages fit.

    Each has a storage of its own for PyTorch: a compiler would take parts of one for aliases.
    """
    if device.type != "cpu":
        return [torch.empty(tuple(shape), dtype=dtype, device=device) for shape, dtype in shapes]
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
    ends = list(accumulate(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes))
    block = torch.empty(ends[-1] if ends else 0, dtype=torch.uint8).numpy()
    return [
        torch.from_numpy(block[start : start + size]).view(dtype).view(tuple(shape))
        for (shape, dtype), size, start in zip(shapes, sizes, [0, *ends[:-1]], strict=False)
    ]


def _take_in_memory(
    view: View, part: Slices, dtype: torch.dtype, source: WeightSource, device: torch.device
) -> torch.Tensor | None:
    """Return slices of a tensor that is in memory as it is; None if pieces must be joined."""
    first = view.pieces[0].tensor if view.pieces else ""
    whole = source.tensors.get(first)
    if isinstance(whole, torch.Tensor) and view == whole_view(first, view.shape, view.dtype):
        taken: torch.Tensor = part.take(whole)
        return taken.to(device, dtype)
    return None


def _fill(
    view: View, part: Slices, source: WeightSource, target: torch.Tensor
) -> Iterator[ReadJob]:
    """Fill a tensor with slices: from memory at once, from files by the jobs that are yielded."""
    for piece_slice in slice_pieces(view, part.runs):
        piece = piece_slice.piece
        stored = source.tensors[piece.tensor]
        if isinstance(stored, StoredTensor):
            yield ReadJob(stored, piece_slice, target)
        else:
            strided = stored.contiguous().as_strided(piece.shape, piece.strides, piece.offset)
            taken = Slices(piece.tensor, piece.shape, piece_slice.runs).take(strided)
            target[piece_slice.box] = taken.to(target.device)
