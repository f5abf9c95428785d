"""Equal layers are exported once; the graph is the one a full export gives."""

import models
import pytest
from torch import nn

from parframe.graph_json import dump_graph
from parframe.loading.huggingface import (
    build_model,
    find_model_class,
    load_config,
    loader,
    meta_export,
)
from parframe.loading.huggingface.layer_stacks import find_stacks
from parframe.loading.huggingface.repeated_layers import repeat_layers

pytestmark = pytest.mark.slow

CASES = {
    "llama": ({"num_hidden_layers": 12}, 2),
    "gemma2": ({"num_hidden_layers": 12}, 4),
    "gemma3_text": ({"num_hidden_layers": 14, "sliding_window_pattern": 3}, 6),
    "gpt2": ({"num_hidden_layers": 12}, 2),
    "bert": ({"num_hidden_layers": 12}, 2),
    "vit": ({"num_hidden_layers": 12}, 2),
    "bloom": ({"num_hidden_layers": 12}, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_short_export_equals_the_full_one(name):
    changes, exported = CASES[name]
    config = models.tiny_config(name, **changes)
    [stack] = find_stacks(build_model(find_model_class(config), config, "eager"), [config])
    assert stack.exported == exported
    assert dump_graph(load_config(config)) == dump_graph(load_config(config, shorten=False))


def dense_first():
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING["deepseek_v3"](
        hidden_size=32, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=48, moe_intermediate_size=16, vocab_size=64, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=16,
        kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
        n_shared_experts=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def test_a_dense_first_layer_is_a_kind_of_its_own():
    config = dense_first()
    [stack] = find_stacks(build_model(find_model_class(config), config, "eager"), [config])
    assert stack.kinds == (0, 1, 1, 1, 1, 1, 1, 1)
    assert stack.exported == 3
    assert dump_graph(load_config(config)) == dump_graph(load_config(config, shorten=False))


class Layer(nn.Module):
    def __init__(self, index, scale):
        super().__init__()
        self.index = index
        self.scale = scale
        self.weight = nn.Linear(4, 4)


class Config:
    def __init__(self, **lists):
        vars(self).update(lists)


def kinds_of(layers, **lists):
    model = nn.Module()
    model.layers = nn.ModuleList(layers)
    stacks = find_stacks(model, [Config(**lists)])
    return (stacks[0].kinds, stacks[0].exported) if stacks else None


def test_a_layers_own_index_does_not_tell_it_apart():
    assert kinds_of([Layer(i, 1.0) for i in range(5)]) == ((0,) * 5, 2)


def test_an_attribute_tells_layers_apart():
    assert kinds_of([Layer(i, float(i % 2)) for i in range(8)]) == ((0, 1) * 4, 4)


def test_a_list_in_the_configuration_tells_layers_apart():
    kinds = kinds_of([Layer(i, 1.0) for i in range(6)], rotates=[True, True, False] * 2)
    assert kinds is None
    kinds = kinds_of([Layer(i, 1.0) for i in range(9)], rotates=[True, True, False] * 3)
    assert kinds == ((0, 0, 1) * 3, 6)


def test_layers_that_all_differ_are_exported_in_full():
    assert kinds_of([Layer(0, float(i * i)) for i in range(5)]) is None


def test_a_list_of_modules_without_parts_is_no_list_of_layers():
    assert kinds_of([nn.Linear(4, 4) for _ in range(5)]) is None


def test_layers_that_turn_out_unequal_are_exported_in_full(monkeypatch):
    config = models.tiny_config("gemma2", num_hidden_layers=6)
    calls = []

    def wrong(graph, stack, parameter):
        calls.append(stack)
        wrong_stack = stack.__class__(stack.path, (0,) * 6, stack.exported)
        return repeat_layers(graph, wrong_stack, parameter)

    monkeypatch.setattr(loader, "repeat_layers", wrong)
    graph = load_config(config)
    assert len(calls) == 1
    assert dump_graph(graph) == dump_graph(load_config(config, shorten=False))


def test_a_deep_model_is_exported_with_two_of_its_layers(monkeypatch):
    exported = []
    export = meta_export.export

    def count(model, *args, **kwargs):
        exported.append(len(model.model.layers))
        return export(model, *args, **kwargs)

    monkeypatch.setattr(meta_export, "export", count)
    graph = load_config(models.tiny_config("llama", num_hidden_layers=126))
    assert exported == [2]
    assert len(graph.calls) == 128
    assert "model.layers.125.mlp.down_proj.weight" in graph.parameters


def test_layers_that_are_run_more_than_once_are_exported_in_full():
    config = {
        "model_type": "hrm_text", "hidden_size": 32, "intermediate_size": 48,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64,
        "num_layers_per_stack": 4, "H_cycles": 1, "L_cycles": 2, "L_bp_cycles": [1],
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    names = [call.name for call in load_config(config).calls]
    assert sum(name.startswith("model.L_module.layers.3") for name in names) == 2


def test_layers_that_are_looked_up_by_number_are_exported_in_full():
    config = {
        "model_type": "xlm", "emb_dim": 32, "n_layers": 3, "n_heads": 2, "n_words": 64,
        "architectures": ["XLMWithLMHeadModel"], "pad_token_id": 0,
    }  # fmt: skip
    names = [call.name for call in load_config(config).calls]
    assert "transformer.attentions.2" in names


def test_a_model_may_make_tensors_of_its_own():
    config = {
        "model_type": "xlnet", "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48,
        "vocab_size": 64, "architectures": ["XLNetLMHeadModel"], "use_mems_eval": False,
    }  # fmt: skip
    assert load_config(config).source == "XLNetLMHeadModel"
