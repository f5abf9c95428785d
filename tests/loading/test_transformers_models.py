"""Loaded graphs compute what transformers computes."""

import models
import pytest
import torch

from parframe.errors import ParframeError
from parframe.loading import load
from parframe.loading.huggingface import load_config
from parframe.simulation.reference import run_graph
from parframe.sizes import symbol
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow

SIZES = [(1, 1), (2, 5), (3, 17), (1, 33)]


def inputs_of(name, batch, sequence):
    if name == "vit":
        generator = torch.Generator().manual_seed(batch)
        shape = (batch, 3, 16, 16)
        return {"pixel_values": torch.randn(shape, generator=generator, dtype=torch.float64)}
    return {"input_ids": models.tokens(batch, sequence)}


def assert_computes_the_same(graph, model, name):
    weights = read_state_dict(graph, model, torch.float64)
    for batch, sequence in SIZES:
        inputs = inputs_of(name, batch, sequence)
        expected = models.reference_outputs(model, inputs).logits
        actual = run_graph(graph, inputs, weights, torch.float64)["logits"]
        error = (actual - expected).abs().max() / expected.abs().max()
        assert error < 1e-12, f"{name} at {batch} x {sequence}: {error}"


@pytest.mark.parametrize("name", [*models.FAMILIES, *models.EXPERT_FAMILIES])
def test_a_family_computes_what_transformers_computes(name):
    graph = load(models.tiny_config(name))
    assert_computes_the_same(graph, models.tiny_model(name), name)


VARIANTS = {
    "gpt2 scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "llama with biases and tied": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama of one key-value head": ("llama", {"num_key_value_heads": 1}),
    "llama with scaled rotation": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "falcon with alibi": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "mistral of a long window": ("mistral", {"sliding_window": 4096}),
    "opt normed after": ("opt", {"do_layer_norm_before": False}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_computes_what_transformers_computes(variant):
    name, changes = VARIANTS[variant]
    graph = load(models.tiny_config(name, **changes))
    attention = "sdpa" if "alibi" in changes else "eager"  # eager would add alibi twice
    assert_computes_the_same(graph, models.tiny_model(name, attention=attention, **changes), name)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3_text", "cohere2", "mistral"])
def test_attention_is_one_operator_a_layer(name):
    graph = load(models.tiny_config(name))
    targets = [operator.target for _, operator in graph.expand()]
    assert targets.count("parframe.attention.default") == 2
    assert not any("softmax" in target for target in targets)


def test_windows_are_read_from_the_masks():
    graph = load(models.tiny_config("gemma2"))
    windows = [
        operator.args.get("window")
        for _, operator in graph.expand()
        if operator.target == "parframe.attention.default"
    ]
    assert windows == [6, None]


def test_inputs_and_outputs_have_the_names_of_the_model():
    graph = load(models.tiny_config("llama"))
    assert graph.inputs["input_ids"].shape == (symbol("batch"), symbol("sequence"))
    assert graph.inputs["input_ids"].axes == ("batch", "sequence")
    assert graph.outputs == {"$class": "CausalLMOutputWithPast", "logits": "tail/linear"}


def test_operators_have_the_module_and_the_line_they_came_from():
    graph = load(models.tiny_config("llama"))
    found = {
        operator.module: operator.source
        for _, operator in graph.expand()
        if operator.target == "aten.linear.default"
    }
    assert "model.layers.1.mlp.down_proj" in found
    assert "self.down_proj" in found["model.layers.1.mlp.down_proj"]
    assert found["model.layers.1.mlp.down_proj"].startswith("modeling_llama.py:")


def test_every_attention_has_two_states():
    graph = load(models.tiny_config("llama"))
    layer = graph.blocks["model.layers"]
    assert [state.name for state in layer.states] == ["attention.key", "attention.value"]


def test_tied_weights_are_one_parameter_with_aliases():
    graph = load(models.tiny_config("llama", tie_word_embeddings=True))
    assert graph.parameters["model.embed_tokens.weight"].aliases == ("lm_head.weight",)
    assert "lm_head.weight" not in graph.parameters


def test_transformers_is_left_as_it_was():
    from transformers import masking_utils
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    search = masking_utils.find_packed_sequence_indices
    load(models.tiny_config("llama"))
    assert "parframe" not in AttentionInterface._global_mapping
    assert "parframe" not in AttentionMaskInterface._global_mapping
    assert masking_utils.find_packed_sequence_indices is search


def test_a_configuration_is_left_as_it_was():
    config = models.tiny_config("llama")
    before = config.to_json_string()
    load(config)
    assert config.to_json_string() == before


def test_a_padding_mask_as_input_keeps_the_models_own_mask():
    config = models.tiny_config("llama")
    inputs = {"input_ids": models.tokens(3, 7), "attention_mask": torch.ones(3, 7).long()}
    graph = load(config, inputs)
    model = models.tiny_model("llama")
    inputs["attention_mask"][1, :3] = 0
    expected = models.reference_outputs(model, inputs).logits
    weights = read_state_dict(graph, model, torch.float64)
    actual = run_graph(graph, inputs, weights, torch.float64)["logits"]
    seen = inputs["attention_mask"].bool()
    assert (actual - expected)[seen].abs().max() < 1e-12


def test_the_dtype_is_the_configurations():
    graph = load(models.tiny_config("llama", dtype="bfloat16"))
    assert graph.parameters["lm_head.weight"].dtype == "bfloat16"
    assert graph.parameters["model.rotary_emb.inv_freq"].dtype == "float32"


def test_a_configuration_that_makes_no_model_is_refused():
    with pytest.raises(ParframeError, match="no model can be built from its configuration"):
        load_config(models.tiny_config("llama", hidden_act="no such function"))
