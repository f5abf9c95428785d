"""Mask functions are converted to patterns if they depend on distance only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import masking_utils

from parframe.loading.huggingface.mask_functions import MaskPattern, UnreadableMaskError, read_mask

pytestmark = pytest.mark.slow


def test_causal_and_full_masks_are_read():
    assert read_mask(masking_utils.causal_mask_function) == MaskPattern(True, None)
    assert read_mask(masking_utils.bidirectional_mask_function) == MaskPattern(False, None)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200_000))
def test_windows_are_read(window):
    causal = masking_utils.sliding_window_causal_mask_function(window)
    assert read_mask(causal) == MaskPattern(True, window)
    both = masking_utils.sliding_window_bidirectional_mask_function(window)
    assert read_mask(both) == MaskPattern(False, window + 1)


def chunked(batch, head, query, key):
    return (query // 64 == key // 64) & (key <= query)


def prefix(batch, head, query, key):
    return (key <= query) | (key < 16777300)


def holes(batch, head, query, key):
    return (query - key) % 3 == 0


def ahead_only(batch, head, query, key):
    return key > query


def lopsided(batch, head, query, key):
    return (key <= query + 2) & (key > query - 9)


def padded(batch, head, query, key):
    return torch.ones(2, 8, dtype=torch.bool)[0, 0] & (key <= query)


@pytest.mark.parametrize("mask", [chunked, prefix, holes, ahead_only, lopsided, padded])
def test_other_masks_are_not_read(mask):
    with pytest.raises(UnreadableMaskError):
        read_mask(mask)
