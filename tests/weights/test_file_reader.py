"""Slices of any stored order and dtype are read as NumPy takes them."""

import hypothesis.strategies as st
import numpy
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file

from parframe.weights import (
    file_reader,
)
from parframe.weights.file_reader import ReadJob, open_reader
from parframe.weights.safetensors_header import read_header
from parframe.weights.strided_views import slice_pieces, whole_view
from parframe.weights.tensor_tracing import trace_tensor


@st.composite
def sliced(draw):
    """A shape and for each axis of it runs in order."""
    shape, runs = [], []
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.integers(1, 9))
        ends = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
        found = list(zip(ends[::2], ends[1::2], strict=False))
        shape.append(size)
        runs.append(tuple(found or [(0, size)]))
    return tuple(shape), tuple(runs)


DTYPES = (torch.complex64, torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.bool)


@settings(max_examples=150, deadline=None)
@given(sliced(), st.sampled_from(DTYPES), st.data())
def test_any_slices_of_any_stored_order_are_those_of_numpy(tmp_path_factory, case, dtype, data):
    shape, runs = case
    whole = torch.randint(0, 200, shape).to(dtype)
    order = data.draw(st.permutations(range(len(shape))))
    stored_as = whole.permute(order).contiguous()
    path = tmp_path_factory.mktemp("slices") / "one.safetensors"
    save_file({"w": stored_as}, path)
    stored = read_header(path).tensors["w"]
    back = trace_tensor("w", stored.shape, stored.dtype).permute(numpy.argsort(order).tolist())
    view = back.view_of if shape else whole_view("w", (), stored.dtype)
    target = torch.zeros([sum(b - a for a, b in axis) for axis in runs], dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_reader, "STAGING_BYTES", data.draw(st.sampled_from([16 << 20, 64])))
        with open_reader(10**6 if data.draw(st.booleans()) else 0, None) as made:
            for piece_slice in slice_pieces(view, runs):
                made.run(ReadJob(stored, piece_slice, target))
    expected = whole
    for axis, found in enumerate(runs):
        index = torch.cat([torch.arange(a, b) for a, b in found])
        expected = expected.index_select(axis, index)
    assert torch.equal(target, expected)
