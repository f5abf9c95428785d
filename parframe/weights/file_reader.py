"""Reader of byte ranges of files into tensors: only those that are wanted, each once."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import numpy
import torch

from parframe.errors import ParframeError
from parframe.weights.safetensors_header import StoredTensor, itemsize
from parframe.weights.strided_views import Extents, PieceSlice, extents, split_slice, stored_order

Progress = Callable[[int, int], None]
"""Callback that receives the bytes that were read, and the total."""

STAGING_BYTES = 16 << 20
"""Most bytes of memory, in addition to the tensors, that convert or rearrange data."""

_READ_SIZE = 64 << 20
"""Most bytes of one read."""

_SHORT_RUN = 512
"""Mean bytes of runs up to which they may be read together with the gaps between them."""

_SMALL_GAP = 4096
"""Most bytes of a gap that is read through."""

_SPARE_FRACTION = 0.015
"""Fraction of all bytes that may be read without need."""


@attrs.frozen
class ReadJob:
    """Slice of a stored tensor, and the tensor that it goes to."""

    stored: StoredTensor
    piece_slice: PieceSlice
    target: torch.Tensor

    @property
    def bytes(self) -> int:
        """Number of bytes in the file."""
        return self.piece_slice.elements * itemsize(self.stored.dtype)


@attrs.define
class FileReader:
    """Reads slices of stored tensors from files.

    - ``total``: the bytes to read in all, for ``progress``.
    - ``progress``: the callback after every step.
    - ``spare``: the bytes that may be read without need, where runs are too short to be read one by
      one.
    - ``read``: the bytes that were read.
    """

    total: int
    progress: Progress | None = None
    spare: int = 0
    read: int = 0
    _reported: int = 0
    _staging: torch.Tensor | None = None
    _files: dict[Path, int] = attrs.field(factory=dict)

    def run(self, job: ReadJob) -> None:
        """Fill a job's part of its tensor, in several parts where it must be staged."""
        piece_slice, target = job.piece_slice, job.target[job.piece_slice.box]
        order = stored_order(piece_slice)
        transposed = target.permute(order)
        direct = target.device.type == "cpu" and target.dtype == getattr(torch, job.stored.dtype)
        if direct and transposed.is_contiguous():
            self._fill(job, _memory_of(transposed), extents(piece_slice))
        elif job.bytes <= STAGING_BYTES:
            self._stage(job, transposed)
        else:
            place, axis = next((p, axis) for p, axis in enumerate(order) if target.shape[axis] > 1)
            parts = min(target.shape[axis], math.ceil(job.bytes / STAGING_BYTES))
            if direct and transposed.select(place, 0).is_contiguous():
                parts = target.shape[axis]
            for part in split_slice(piece_slice, axis, parts):
                self.run(attrs.evolve(job, piece_slice=part))

    def _stage(self, job: ReadJob, transposed: torch.Tensor) -> None:
        """Read into a staging buffer, then convert, rearrange or move to the device."""
        if self._staging is None:
            pinned = transposed.device.type == "cuda"
            self._staging = torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=pinned)
        staged = self._staging[: job.bytes].view(getattr(torch, job.stored.dtype))
        self._fill(job, _memory_of(staged), extents(job.piece_slice))
        transposed.copy_(staged.view(transposed.shape))

    def _fill(self, job: ReadJob, memory: memoryview, ranges: Extents) -> None:
        size = itemsize(job.stored.dtype)
        starts, lengths = ranges[0] * size + job.stored.start, ranges[1] * size
        file = self._file(job.stored.file)
        if self._can_read_through(starts, lengths):
            self._read_through(file, job, memory, (starts, lengths))
            return
        at = 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            self._pread(file, memory[at : at + length], start, job.stored)
            at += length

    def _can_read_through(self, starts: numpy.ndarray, lengths: numpy.ndarray) -> bool:
        if starts.size < 8 or lengths.mean() > _SHORT_RUN:
            return False
        gaps = starts[1:] - starts[:-1] - lengths[:-1]
        near = gaps <= _SMALL_GAP
        extra = int(gaps[near].sum())
        if extra > self.spare or near.mean() < 0.5:
            return False
        self.spare -= extra
        return True

    def _read_through(self, file: int, job: ReadJob, memory: memoryview, ranges: Extents) -> None:
        """Read runs that are near each other together with the bytes between them."""
        starts, lengths = ranges
        size = itemsize(job.stored.dtype)
        stops = starts + lengths
        at, first = 0, 0
        while first < starts.size:
            last = int(numpy.searchsorted(stops, starts[first] + STAGING_BYTES // 4, side="right"))
            last = max(last, first + 1)
            far = numpy.flatnonzero(starts[first + 1 : last] - stops[first : last - 1] > _SMALL_GAP)
            last = first + int(far[0]) + 1 if far.size else last
            block = bytearray(int(stops[last - 1] - starts[first]))
            self._pread(file, memoryview(block), int(starts[first]), job.stored)
            taken = _pick_elements(
                block, starts[first:last] - starts[first], lengths[first:last], size
            )
            memory[at : at + taken.nbytes] = memoryview(taken.data).cast("B")
            at += taken.nbytes
            first = last

    def _pread(self, file: int, memory: memoryview, start: int, stored: StoredTensor) -> None:
        at = 0
        while at < len(memory):
            try:
                count = os.preadv(file, [memory[at : at + _READ_SIZE]], start + at)
            except OSError as error:
                raise _unreadable(stored, str(error.strerror)) from error
            if not count:
                raise _unreadable(stored, "the file ends too early")
            at += count
            self.read += count
            if self.progress is not None and self.read - self._reported >= STAGING_BYTES:
                self._reported = self.read
                self.progress(min(self.read, self.total), self.total)

    def _file(self, path: Path) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise ParframeError(
                    "weights", str(path), f"cannot be read ({error.strerror})", "check the file"
                ) from error
        return self._files[path]

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])


@contextmanager
def open_reader(total: int, progress: Progress | None) -> Iterator[FileReader]:
    """Return a context with a reader for some number of bytes."""
    reader = FileReader(total, progress, spare=int(total * _SPARE_FRACTION))
    with closing(reader):
        yield reader
    if progress is not None:
        progress(total, total)


def _pick_elements(
    block: bytearray, starts: numpy.ndarray, lengths: numpy.ndarray, size: int
) -> numpy.ndarray:
    """Return the elements of a block that runs, in bytes, take."""
    counts = lengths // size
    before = numpy.cumsum(counts) - counts
    index = numpy.repeat(starts // size - before, counts) + numpy.arange(int(counts.sum()))
    return numpy.frombuffer(block, dtype=f"V{size}")[index]


def _memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU."""
    if not tensor.numel():
        return memoryview(b"")
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _unreadable(stored: StoredTensor, why: str) -> ParframeError:
    return ParframeError(
        "weights", f"{stored.file}, {stored.name}", why, "download or write the file again"
    )
