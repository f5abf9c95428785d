"""Bytes of files straight into tensors: only those that are wanted, each once."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import numpy
import torch

from parframe.errors import ParframeError
from parframe.weights.safetensors_header import StoredTensor, itemsize
from parframe.weights.strided_views import Cut, Extents, extents, split, stored_order

Progress = Callable[[int, int], None]
"""Is told how many bytes were read, and how many there are in all."""

STAGING_BYTES = 16 << 20
"""The most bytes that are held beside the tensors themselves, to convert or rearrange them."""

_AT_ONCE = 64 << 20
_SHORT = 512
_NEAR = 4096
_SPARE = 0.015


@attrs.frozen
class ReadJob:
    """A cut of a stored tensor, and the tensor that it goes to."""

    stored: StoredTensor
    cut: Cut
    target: torch.Tensor

    @property
    def bytes(self) -> int:
        """The bytes that it takes of the file."""
        return self.cut.elements * itemsize(self.stored.dtype)


@attrs.define
class Reader:
    """Reads cuts out of files.

    Parameters
    ----------
    total
        The bytes that are to be read in all, for ``progress``.
    progress
        Told after every step.
    spare
        The bytes that may be read without being wanted, where runs are too short to be read
        one by one.
    read
        The bytes that were read.
    """

    total: int
    progress: Progress | None = None
    spare: int = 0
    read: int = 0
    _told: int = 0
    _staging: torch.Tensor | None = None
    _files: dict[Path, int] = attrs.field(factory=dict)

    def run(self, job: ReadJob) -> None:
        """Fill a job's part of its tensor, a part after the other where it must be staged."""
        cut, target = job.cut, job.target[job.cut.box]
        order = stored_order(cut)
        turned = target.permute(order)
        same = target.device.type == "cpu" and target.dtype == getattr(torch, job.stored.dtype)
        if same and turned.is_contiguous():
            self._fill(job, _memory(turned), extents(cut))
        elif job.bytes <= STAGING_BYTES:
            self._stage(job, turned)
        else:
            place, axis = next((p, axis) for p, axis in enumerate(order) if target.shape[axis] > 1)
            parts = min(target.shape[axis], math.ceil(job.bytes / STAGING_BYTES))
            if same and turned.select(place, 0).is_contiguous():
                parts = target.shape[axis]
            for part in split(cut, axis, parts):
                self.run(attrs.evolve(job, cut=part))

    def _stage(self, job: ReadJob, turned: torch.Tensor) -> None:
        """Read into memory of its own, then convert, rearrange or move to the device."""
        if self._staging is None:
            pinned = turned.device.type == "cuda"
            self._staging = torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=pinned)
        staged = self._staging[: job.bytes].view(getattr(torch, job.stored.dtype))
        self._fill(job, _memory(staged), extents(job.cut))
        turned.copy_(staged.view(turned.shape))

    def _fill(self, job: ReadJob, memory: memoryview, found: Extents) -> None:
        size = itemsize(job.stored.dtype)
        starts, lengths = found[0] * size + job.stored.start, found[1] * size
        file = self._file(job.stored.file)
        if self._is_worth_reading_through(starts, lengths):
            self._read_through(file, job, memory, (starts, lengths))
            return
        at = 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            self._pread(file, memory[at : at + length], start, job.stored)
            at += length

    def _is_worth_reading_through(self, starts: numpy.ndarray, lengths: numpy.ndarray) -> bool:
        if starts.size < 8 or lengths.mean() > _SHORT:
            return False
        gaps = starts[1:] - starts[:-1] - lengths[:-1]
        near = gaps <= _NEAR
        extra = int(gaps[near].sum())
        if extra > self.spare or near.mean() < 0.5:
            return False
        self.spare -= extra
        return True

    def _read_through(self, file: int, job: ReadJob, memory: memoryview, found: Extents) -> None:
        """Read runs that lie near each other together with what is between them."""
        starts, lengths = found
        size = itemsize(job.stored.dtype)
        stops = starts + lengths
        at, first = 0, 0
        while first < starts.size:
            last = int(numpy.searchsorted(stops, starts[first] + STAGING_BYTES // 4, side="right"))
            last = max(last, first + 1)
            far = numpy.flatnonzero(starts[first + 1 : last] - stops[first : last - 1] > _NEAR)
            last = first + int(far[0]) + 1 if far.size else last
            block = bytearray(int(stops[last - 1] - starts[first]))
            self._pread(file, memoryview(block), int(starts[first]), job.stored)
            taken = _picked(block, starts[first:last] - starts[first], lengths[first:last], size)
            memory[at : at + taken.nbytes] = memoryview(taken.data).cast("B")
            at += taken.nbytes
            first = last

    def _pread(self, file: int, memory: memoryview, start: int, stored: StoredTensor) -> None:
        at = 0
        while at < len(memory):
            try:
                count = os.preadv(file, [memory[at : at + _AT_ONCE]], start + at)
            except OSError as error:
                raise _unreadable(stored, str(error.strerror)) from error
            if not count:
                raise _unreadable(stored, "the file ends too early")
            at += count
            self.read += count
            if self.progress is not None and self.read - self._told >= STAGING_BYTES:
                self._told = self.read
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
def open_reader(total: int, progress: Progress | None) -> Iterator[Reader]:
    """A reader for so many bytes, closed at the end."""
    made = Reader(total, progress, spare=int(total * _SPARE))
    with ExitStack() as stack:
        stack.callback(made.close)
        yield made
    if progress is not None:
        progress(total, total)


def in_file_order(jobs: Iterable[ReadJob]) -> list[ReadJob]:
    """Jobs in the order in which their bytes lie in the files."""
    return sorted(jobs, key=lambda job: (str(job.stored.file), job.stored.start))


def _picked(
    block: bytearray, starts: numpy.ndarray, lengths: numpy.ndarray, size: int
) -> numpy.ndarray:
    """The elements of a block that runs, in bytes, take."""
    counts = lengths // size
    before = numpy.cumsum(counts) - counts
    index = numpy.repeat(starts // size - before, counts) + numpy.arange(int(counts.sum()))
    return numpy.frombuffer(block, dtype=f"V{size}")[index]


def _memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU."""
    if not tensor.numel():
        return memoryview(b"")
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _unreadable(stored: StoredTensor, why: str) -> ParframeError:
    return ParframeError(
        "weights", f"{stored.file}, {stored.name}", why, "download or write the file again"
    )
