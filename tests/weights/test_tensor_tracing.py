"""Tensors are traced through operators that move elements."""

import pytest
import torch

from parframe.weights.tensor_tracing import UntraceableError, trace_tensor


def tensor_of(view, stored):
    """The tensor that a view stands for."""
    made = torch.full(view.shape, torch.nan)
    for piece in view.pieces:
        box = tuple(slice(at, at + size) for at, size in zip(piece.at, piece.shape, strict=True))
        made[box] = stored[piece.tensor].as_strided(piece.shape, piece.strides, piece.offset)
    return made


PAIR = {"a": torch.arange(24.0).reshape(4, 6), "b": torch.arange(100.0, 124.0).reshape(4, 6)}
STEPS = {
    "stack": lambda a, b: torch.stack([a, b], -1),
    "cat": lambda a, b: torch.cat([a, b], 1),
    "interleave": lambda a, b: a.reshape(2, 2, 6).transpose(0, 1).reshape(4, 6).contiguous(),
    "chunks": lambda a, b: torch.cat((*torch.chunk(a.t(), 3, 0)[::-1], b.t())),
    "unbind": lambda a, b: torch.stack(torch.stack([a, b]).unbind(1)[1:3])[:, :, 1:4],
    "squeeze": lambda a, b: torch.split(a, [1, 3])[0].squeeze(0).unsqueeze(-1).clone(),
    "flatten": lambda a, b: torch.stack([a, b]).reshape(2, 24),
}


@pytest.mark.parametrize("name", STEPS)
def test_tensors_are_traced_through_operators_that_move_elements(name):
    traced = (trace_tensor(own, (4, 6), "float32") for own in PAIR)
    assert torch.equal(tensor_of(STEPS[name](*traced).view_of, PAIR), STEPS[name](*PAIR.values()))


@pytest.mark.parametrize("step", [lambda a: a + 1, lambda a: torch.cat([a, a]).view(2, 2, 2, 6)])
def test_operators_that_compute_are_not_traced(step):
    with pytest.raises(UntraceableError):
        step(trace_tensor("a", (4, 6), "float32"))


def test_conversions_of_transformers_are_traced():
    from transformers import LlamaConfig
    from transformers import core_model_loading as core

    source = torch.randn(12, 8)
    for operations in (
        [core.Interleave(dim=0)],
        [core.Interleave(dim=1, inverse=True)],
        [core.PermuteForRope()],
        [core.Transpose(0, 1)],
        [core.Interleave(dim=0), core.Transpose(0, 1)],
    ):

        def made(tensor, operations=operations):
            found = {"source": [tensor]}
            for one in operations:
                found = one.convert(
                    found, source_patterns=["source"], target_patterns=["source"],
                    config=LlamaConfig(num_attention_heads=2),
                )  # fmt: skip
            return found["source"]

        view = made(trace_tensor("w", (12, 8), "float32")).view_of
        assert torch.equal(tensor_of(view, {"w": source}), made(source)), operations
