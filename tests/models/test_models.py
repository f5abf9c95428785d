"""Shipped models: lookup by name, and graphs that agree with the configurations."""

from __future__ import annotations

import csv
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from parframe import models
from parframe.errors import ParframeError

SPELLINGS = {
    "meta-llama/Llama-3.1-8B-Instruct": ("Llama 3.1 8B", "bf16"),
    "LLaMA-3.1-70B": ("Llama 3.1 70B", "bf16"),
    "Llama-2-7b-hf": ("Llama 2 7B", "fp16"),
    "Mistral-7B-v0.1": ("Mistral 7B", "bf16"),
    "LLaMA 7B": ("LLaMA 7B", "fp16"),
    "Qwen/Qwen3-32B-FP8": ("Qwen3 32B", "fp8"),
    "nvidia/Llama-3.3-70B-Instruct-FP8": ("Llama 3.1 70B", "fp8"),
    "openai/gpt-oss-120b": ("GPT-OSS 120B", "fp4"),
    "deepseek-ai/DeepSeek-R1": ("DeepSeek-V3", "fp8"),
    "deepseek-ai/DeepSeek-R1-0528": ("DeepSeek-V3", "fp8"),
    "Qwen3-235B-A22B-Instruct-2507-FP8": ("Qwen3 235B-A22B", "fp8"),
    "meta-llama/Meta-Llama-3-70B": ("Llama 3 70B", "bf16"),
    "TheBloke/Llama-2-70B-Chat-GPTQ": ("Llama 2 70B", "int4"),
    "codellama/CodeLlama-34b-Instruct-hf": ("CodeLlama 34B", "bf16"),
}

PARAMETERS = {  # in billions, as their publishers say
    "Llama 2 7B": 6.74, "Llama 2 70B": 68.98, "Llama 3.1 8B": 8.03, "Llama 3.1 405B": 405.85,
    "Mixtral 8x7B": 46.70, "Mixtral 8x22B": 140.63, "Qwen3 32B": 32.76,
    "Qwen3 235B-A22B": 235.09, "DeepSeek-V3": 671.03, "GPT-OSS 20B": 20.91,
    "GPT-OSS 120B": 116.83, "Falcon 180B": 178.56, "GPT-J 6B": 6.05, "Qwen 72B": 72.29,
    "Llama 4 Scout": 107.77, "Llama 4 Maverick": 400.71,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_usual_spelling_finds_the_model_and_its_dtype(spelling: str) -> None:
    found = models.find_model(spelling)
    assert (found.name, found.weights) == SPELLINGS[spelling]


def test_an_unknown_model_is_an_error_with_suggestions() -> None:
    with pytest.raises(ParframeError, match=r"Llama 3\.1 8B"):
        models.find_model("meta-llama/Llama-3.1-9B")
    assert models.lookup_model("some/other-model") is None


def test_no_two_models_share_a_spelling() -> None:
    from parframe.models.catalog import _catalog_entries, _key

    keys = [
        {_key(name)[0] for name in (entry["name"], entry["file"], *entry.get("names", ()))}
        for entry in _catalog_entries()
    ]
    assert sum(map(len, keys)) == len(set().union(*keys))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_graph_has_the_parameters_that_are_published(name: str) -> None:
    graph = models.find_model(name).graph()
    count = sum(
        math.prod(part.shape) for part in graph.parameters.values() if part.kind == "parameter"
    )
    assert count / 1e9 == pytest.approx(PARAMETERS[name], abs=0.01)


@pytest.mark.parametrize("name", ["Qwen3 0.6B", "Llama 3.1 8B", "GPT-OSS 20B"])
def test_a_shipped_graph_is_what_loading_gives(name: str) -> None:
    maker = Path(__file__).parents[2] / "benchmarks" / "export_shipped_models.py"
    exported = runpy.run_path(str(maker))["load_graph"]
    model = models.find_model(name)
    now, before = exported(model), model.graph()
    assert now.blocks == before.blocks
    assert now.calls == before.calls
    assert now.parameters == before.parameters
    assert (now.inputs, now.outputs) == (before.inputs, before.outputs)


def test_every_model_that_was_measured_ships() -> None:
    folder = Path(__file__).parents[3] / "shared" / "measurements"
    if not folder.is_dir():
        pytest.skip("the measured tables are not next to the checkout")
    names = set()
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8") as lines:
            names |= {row.get("model") or "" for row in csv.DictReader(lines)} - {""}
    assert names
    assert not [name for name in sorted(names) if models.lookup_model(name) is None]


def test_models_are_found_without_torch() -> None:
    code = (
        "import sys\nfrom parframe import models\nmodels.find_model('mixtral-8x7b').graph()\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
