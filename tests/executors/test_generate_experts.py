"""Mixtures of experts in real processes generate the tokens of transformers."""

import pytest
from greedy_generation import PROMPTS, completed, expected, saved

import parframe
from parframe.generation import Settings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "composite"),
    [("mixtral", "EP4"), ("qwen3_moe", "EP2TP2"), ("deepseek_v3", "EP2PP2"), ("gpt_oss", "EP2")],
)
def test_experts_in_processes_generate_the_tokens_of_transformers(tmp_path, name, composite):
    wanted = expected(saved(name, tmp_path), PROMPTS, 12)
    plan = parframe.partition(parframe.load(tmp_path, positions=True), composite)
    assert completed(plan, PROMPTS, 12, Settings(tmp_path)) == wanted
