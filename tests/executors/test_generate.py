"""Generation in real processes: the tokens equal those of transformers for every composite."""

from functools import cache

import pytest
import texts
from plan_assertions import STORIES, needs_stories

import parframe
from parframe.generation import Sampling
from parframe.generation.tokenization import read_tokenizer

PROMPTS = [[5, 9, 70], [11, 3, 8, 40, 2, 19, 33], [1], [90, 17, 64, 5, 5], [7, 7]]
NEW = 12

STORY = "Once upon a time, there was a little girl named"
CONTINUATION = (
    " Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to "
    "play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was "
    "sad and did"
)
"""Continuation in the model's README, 80 tokens of transformers."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return texts.folder_of("llama", tmp_path_factory.mktemp("llama"))


@cache
def stories():
    return parframe.load(STORIES, positions=True)


@needs_stories
@pytest.mark.slow
@pytest.mark.parametrize(
    "composite",
    ["TP2", "TP3", "TP8", "PP2", "PP5", "DP2", "TP2PP2", "TP2PP2DP2", "CP2", "CP2TP2", "TP2SP",
     "CP2PP2"],
)  # fmt: skip
def test_trained_llama_generates_its_story(composite):
    text = read_tokenizer(STORIES)
    prompt = text.encode(STORY)
    (found,) = texts.run(stories(), composite, STORIES, [prompt], 80)
    assert text.decode((*prompt, *found)).endswith(STORY + CONTINUATION)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2", "gpt2", "qwen3", "gpt_oss", "deepseek_v3"])
def test_families_generate_the_tokens_of_transformers(name, tmp_path):
    folder = texts.folder_of(name, tmp_path)
    graph = parframe.load(folder, positions=True)
    expected = texts.continued(folder, PROMPTS, NEW)
    assert texts.run(graph, "TP2PP2", folder, PROMPTS, NEW) == expected


def test_prompts_of_different_lengths_share_a_batch(llama):
    graph = parframe.load(llama, positions=True)
    expected = texts.continued(llama, PROMPTS, NEW)
    assert texts.run(graph, "PP2", llama, PROMPTS, NEW, batch_size=4, micro_batches=2) == expected


def test_replicas_share_requests_and_results_are_in_order(llama):
    graph = parframe.load(llama, positions=True)
    expected = texts.continued(llama, PROMPTS, NEW)
    assert texts.run(graph, "DP2", llama, PROMPTS, NEW, batch_size=1) == expected


def test_long_prompt_is_prefilled_in_chunks(llama, monkeypatch):
    graph = parframe.load(llama, positions=True)
    prompts = [[(3 * at) % 97 for at in range(37)], [4, 2]]
    expected = texts.continued(llama, prompts, 5)
    assert texts.run(graph, "TP2", llama, prompts, 5, prefill_chunk=8) == expected


def test_tokens_are_the_same_without_a_cache(llama):
    graph = parframe.load(llama, positions=True)
    expected = texts.continued(llama, PROMPTS[:2], 6)
    assert texts.run(graph, "TP2", llama, PROMPTS[:2], 6, cached=False) == expected


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_model_without_a_cache_generates_the_tokens_of_transformers(name, tmp_path):
    folder = texts.folder_of(name, tmp_path)
    graph = parframe.load(folder, positions=None)
    assert ("position_ids" in graph.inputs) == (name == "falcon")
    expected = texts.continued(folder, PROMPTS[:3], 6)
    assert texts.run(graph, "TP2", folder, PROMPTS[:3], 6, cached=False) == expected


@pytest.mark.slow
def test_compiled_run_generates_the_same_tokens(llama):
    graph = parframe.load(llama, positions=True)
    expected = texts.continued(llama, PROMPTS[:2], 8)
    assert texts.run(graph, "TP2", llama, PROMPTS[:2], 8, compiled=True) == expected


def test_drawn_tokens_are_the_same_on_every_mesh(llama):
    graph = parframe.load(llama, positions=True)
    sampling = Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=3, max_new_tokens=10)
    found = [
        texts.run(graph, composite, llama, PROMPTS[:3], 10, sampling=sampling)
        for composite in ("TP1", "PP2")
    ]
    assert found[0] == found[1]
    assert found[0] != texts.run(graph, "TP1", llama, PROMPTS[:3], 10)


def test_stop_token_ends_a_text(llama):
    graph = parframe.load(llama, positions=True)
    (whole,) = texts.continued(llama, PROMPTS[:1], NEW)
    stop = whole[4]
    sampling = Sampling(max_new_tokens=NEW, stop=(stop,))
    (found,) = texts.run(graph, "PP2", llama, PROMPTS[:1], NEW, sampling=sampling)
    assert found == whole[: whole.index(stop) + 1]


def test_text_longer_than_the_cache_is_refused(llama):
    graph = parframe.load(llama, positions=True)
    with pytest.raises(parframe.ParframeError, match="cache"):
        texts.run(graph, "TP1", llama, [[1, 2, 3, 4, 5, 6]], 20, context=8)
