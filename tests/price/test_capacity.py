"""Capacity computed from work, compared with the measured capacity of serving engines."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from parframe import models
from parframe.errors import ParframeError
from parframe.price.serving.capacity import GIB, max_sequences, memory_policy
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.work.compressed.work_from_composite import work_from_composite
from parframe.price.work.work import Work

ROWS = Path(__file__).parents[3] / "shared" / "measurements" / "memory.csv"

H100 = 79.18 * GIB
"""Usable bytes of an H100 SXM, as in the measured rows."""


def work(name: str, composite: str) -> Work:
    return work_from_composite(models.find_model(name).graph(), composite)


def rows(engine: str) -> list[dict[str, str]]:
    if not ROWS.is_file():
        pytest.skip("the measured tables are not next to the checkout")
    with ROWS.open(encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["engine"].startswith(engine)]


def test_memory_of_vllm_is_as_measured() -> None:
    for row in rows("vLLM"):
        found = max_sequences(work(row["model"], f"TP{row['tp']}"), H100, 16_000)
        (need,) = found.stages
        assert need.weights / GIB == pytest.approx(float(row["weights_gib"]), rel=0.01)
        assert need.activations / GIB == pytest.approx(float(row["activation_peak_gib"]), rel=0.02)
        assert need.cache_budget / GIB == pytest.approx(float(row["kv_cache_gib"]), rel=0.02)


def test_capacity_of_tensorrt_llm_is_as_measured() -> None:
    errors = {}
    for row in rows("TensorRT-LLM"):
        isl, osl = int(float(row["isl"])), int(float(row["osl"]))
        found = max_sequences(
            work(row["model"], f"TP{row['tp']}"),
            H100,
            isl + osl + 1000,  # what is allocated for each, as the row's notes say
            weights="fp8",
            policy="trtllm",
            tokens=2 * isl,
            cache_fraction=float(row["util"]),
        )
        measured = float(row["max_concurrent_seqs"])
        errors[row["id"]] = found.sequences - measured
        print(row["id"], row["tp"], isl, osl, "measured", measured, "found", found.sequences)
    off = sorted(abs(error) for error in errors.values())
    assert off[len(off) // 2] == 0, errors
    assert max(off) <= 1, errors


def test_quantization_scales_are_counted() -> None:
    (stage,) = work("Llama 3.1 8B", "TP1").stages
    tables = 2 * stage.footprint.unquantized
    half = DeviceMemory.with_dtypes(H100, "int4", "bf16").weight_bytes(stage.footprint) - tables
    assert half == stage.footprint.weights * (0.5 + 2.5 / 128)


def test_a_sliding_window_layer_caches_only_its_window() -> None:
    (stage,) = work("GPT-OSS 20B", "TP1").stages
    assert DeviceMemory.with_dtypes(H100, "bf16", "bf16").sequence_bytes(
        stage.footprint, 4096
    ) == 2 * 12 * 2 * 8 * 64 * (4096 + 128)


def test_replicas_multiply_capacity_and_stages_divide_layers() -> None:
    one = max_sequences(work("Llama 3.1 8B", "TP1"), H100, 4096)
    four = max_sequences(work("Llama 3.1 8B", "DP4"), H100, 4096)
    assert four.sequences == 4 * one.sequences
    staged = max_sequences(work("Llama 3.1 8B", "PP2"), H100, 4096)
    assert staged.sequences > 2 * one.sequences


def test_a_model_that_is_too_large_has_no_capacity() -> None:
    found = max_sequences(work("Llama 3.1 70B", "TP1"), H100, 4096)
    assert found.sequences == 0
    assert found.stages[found.stage].cache_budget < 0


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(ParframeError, match="vllm"):
        memory_policy("vlm")
