"""Weights that are incompatible with a graph are refused before they are read."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import parframe
from parframe.errors import ParframeError
from parframe.weights import (
    open_weights,
    read_weights,
)

NORM, HEAD, QUERY = "model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj"
CHANGES = {
    "missing": (lambda c: c.pop(NORM), [f"{NORM} is missing"]),
    "another shape": (lambda c: c.update({NORM: torch.zeros(3)}), ["has the shape [3], not [64]"]),
    "integers": (
        lambda c: c.update({NORM: torch.zeros(64, dtype=torch.int8)}),
        ["is int8, which does not convert to float32"],
    ),
    "one byte": (
        lambda c: c.update({NORM: torch.zeros(64, dtype=torch.float8_e4m3fn)}),
        ["is float8_e4m3fn, which does not convert"],
    ),
    "an extra bias": (
        lambda c: c.update({f"{QUERY}.bias": torch.zeros(64)}),
        [f"{QUERY}.bias is not in the model", "--extra"],
    ),
    "all at once": (
        lambda c: (c.pop(NORM), c.update({HEAD: torch.zeros(1), f"{QUERY}.bias": torch.ones(64)})),
        [f"{NORM} is missing", f"{HEAD} has the shape [1]", f"{QUERY}.bias is not in the model"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_all_incompatible_tensors_are_listed_before_any_is_read(
    changed_checkpoint, bytes_read, case
):
    change, expected = CHANGES[case]
    plan, folder = changed_checkpoint(change)
    with pytest.raises(ParframeError) as caught:
        read_weights(plan, 0, folder)
    assert caught.value.kind == "weights"
    assert [text for text in expected if text not in str(caught.value)] == []
    assert bytes_read[0] == 0


HARMLESS = {
    "a buffer that the model computes": {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)},
    "a head for another task": {"score.weight": (2, 64)},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_tensor_that_cannot_change_the_result_is_accepted(changed_checkpoint, case):
    more = {name: torch.ones(shape) for name, shape in HARMLESS[case].items()}
    plan, folder = changed_checkpoint(lambda c: c.update(more))
    read_weights(plan, 0, folder)
    remarks = open_weights(plan.graph, folder).matched.remarks
    assert ("score.weight" in " ".join(remarks)) == ("score.weight" in more)


def test_tensors_that_the_models_class_ignores_are_accepted_under_any_prefix(saved, tmp_path):
    folder, graph, _ = saved("transposed fused qkv")
    content = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    for prefix in ("transformer.", ""):
        named = {prefix + name.removeprefix("transformer."): t for name, t in content.items()}
        named[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
        save_file(named, tmp_path / "model.safetensors")
        assert open_weights(graph, tmp_path).matched.remarks == ()
        save_file(
            {**named, f"{prefix}h.0.attn.q.bias": torch.ones(3)}, tmp_path / "model.safetensors"
        )
        with pytest.raises(ParframeError, match=r"h\.0\.attn\.q\.bias is not in the model"):
            open_weights(graph, tmp_path)


def test_an_extra_tensor_is_ignored_on_request(changed_checkpoint):
    plan, folder = changed_checkpoint(lambda c: c.update({f"{QUERY}.bias": torch.zeros(64)}))
    assert read_weights(plan, 0, folder, extra=True).keys() == plan.weights(0).keys()


def test_the_weights_of_another_model_are_named_as_such(saved):
    plan = parframe.partition(saved("llama")[1], "TP2")
    with pytest.raises(ParframeError, match=r"another model: \d+ of \d+ do not match") as caught:
        read_weights(plan, 0, saved("fused qkv by heads")[0])
    assert caught.value.what.count("is missing") == 3
