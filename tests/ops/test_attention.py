"""parframe's attention against PyTorch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.ops.attention import attention


def tensors(batch, kv_heads, group, queries, keys, size, value_size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(queries * 31 + keys)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return (
        draw(batch, kv_heads * group, queries, size),
        draw(batch, kv_heads, keys, size),
        draw(batch, kv_heads, keys, value_size),
    )


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(0, 2),
    kv_heads=st.integers(0, 3),
    group=st.integers(1, 3),
    queries=st.integers(0, 6),
    keys=st.integers(1, 9),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 5),
    softcap=st.none() | st.just(3.0),
)
def test_attention_is_softmax_of_scaled_masked_products(
    batch, kv_heads, group, queries, keys, causal, window, softcap
):
    query, key, value = tensors(batch, kv_heads, group, queries, keys, 4, 3)
    at = torch.arange(queries) + max(keys - queries, 0)
    seen_at = torch.arange(keys)
    result = attention(
        query, key, value, at, seen_at, None, None, 0.5, causal, window, softcap
    )  # fmt: skip
    wide_key, wide_value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    logits = query @ wide_key.transpose(-1, -2) * 0.5
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    distance = at[:, None] - seen_at[None, :]
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        seen &= distance.abs() < window
    logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    expected = (torch.softmax(logits, -1) @ wide_value).transpose(1, 2)
    assert result.shape == (batch, queries, kv_heads * group, 3)
    assert torch.allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_no_keys_give_nothing():
    query, key, value = tensors(1, 2, 1, 3, 0, 4, 4)
    result = attention(query, key, value, None, None, None, None, 1.0, False, None, None)
    assert torch.equal(result, torch.zeros(1, 3, 2, 4, dtype=torch.float64))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("boolean", [True, False])
def test_a_mask_may_be_boolean_or_added(heads, boolean):
    query, key, value = tensors(2, 2, 2, 3, 5, 4, 4)
    mask = torch.rand(2, heads, 3, 5, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[..., 0] = True
    given = mask if boolean else torch.zeros(mask.shape).double().masked_fill(~mask, -torch.inf)
    result = attention(query, key, value, None, None, None, given, 0.5, False, None, None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.5, enable_gqa=True
    )
    assert torch.allclose(result, expected.transpose(1, 2), rtol=1e-12, atol=1e-12)


def test_sinks_take_their_share_of_the_softmax():
    query, key, value = tensors(1, 1, 2, 1, 2, 4, 1)
    sinks = torch.tensor([0.3, -1.0], dtype=torch.float64)
    result = attention(query, key, value, None, None, sinks, None, 1.0, False, None, None)
    logits = (query @ key.transpose(-1, -2))[0, :, 0]
    weights = logits.exp() / (logits.exp().sum(-1) + sinks.exp())[:, None]
    assert torch.allclose(result[0, 0, :, 0], (weights @ value[0, 0])[:, 0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_the_values(dtype):
    query, key, value = tensors(1, 1, 1, 2, 2, 4, 4, dtype)
    at = torch.arange(2)
    result = attention(query, key, value, at, at, None, None, 1.0, True, None, None)
    assert result.dtype is dtype


def test_causal_attention_needs_positions():
    query, key, value = tensors(1, 1, 1, 2, 2, 4, 4)
    with pytest.raises(ValueError, match="needs positions"):
        attention(query, key, value, None, None, None, None, 1.0, True, None, None)
