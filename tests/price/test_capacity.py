"""Memory from work, beside what serving engines were measured to have room for."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from parframe import models
from parframe.errors import ParframeError
from parframe.price.serving.capacity import GIB, allocation, most_sequences, room
from parframe.price.work.compressed.work_from_composite import work_from_composite
from parframe.price.work.work import Work

ROWS = Path(__file__).parents[3] / "shared" / "measurements" / "memory.csv"

H100 = 79.18 * GIB
"""What software sees of an H100 SXM, as the measured rows say."""


def work(name: str, composite: str) -> Work:
    return work_from_composite(models.find(name).graph(), composite)


def rows(engine: str) -> list[dict[str, str]]:
    if not ROWS.is_file():
        pytest.skip("the tables of measurements are not beside the checkout")
    with ROWS.open(encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["engine"].startswith(engine)]


def test_rooms_of_vllm_are_those_measured() -> None:
    for row in rows("vLLM"):
        found = most_sequences(work(row["model"], f"TP{row['tp']}"), H100, 16_000)
        (need,) = found.needs
        assert need.weights / GIB == pytest.approx(float(row["weights_gib"]), rel=0.01)
        assert need.activations / GIB == pytest.approx(float(row["activation_peak_gib"]), rel=0.02)
        assert need.room / GIB == pytest.approx(float(row["kv_cache_gib"]), rel=0.02)


def test_sequences_of_tensorrt_llm_are_those_measured() -> None:
    errors = {}
    for row in rows("TensorRT-LLM"):
        isl, osl = int(float(row["isl"])), int(float(row["osl"]))
        found = most_sequences(
            work(row["model"], f"TP{row['tp']}"),
            H100,
            isl + osl + 1000,  # what is allocated for each, as the row's notes say
            weights="fp8",
            of="trtllm",
            tokens=2 * isl,
            share=float(row["util"]),
        )
        measured = float(row["max_concurrent_seqs"])
        errors[row["id"]] = found.sequences - measured
        print(row["id"], row["tp"], isl, osl, "measured", measured, "found", found.sequences)
    off = sorted(abs(error) for error in errors.values())
    assert off[len(off) // 2] == 0, errors
    assert max(off) <= 1, errors


def test_scales_of_groups_are_counted() -> None:
    (stage,) = work("Llama 3.1 8B", "TP1").stages
    tables = 2 * stage.footprint.unquantized
    half = room(H100, "int4", "bf16").weights(stage.footprint) - tables
    assert half == stage.footprint.weights * (0.5 + 2.5 / 128)


def test_windows_keep_no_more_than_their_positions() -> None:
    (stage,) = work("GPT-OSS 20B", "TP1").stages
    assert room(H100, "bf16", "bf16").row(stage.footprint, 4096) == 2 * 12 * 2 * 8 * 64 * (
        4096 + 128
    )


def test_replicas_add_up_and_stages_share_layers() -> None:
    one = most_sequences(work("Llama 3.1 8B", "TP1"), H100, 4096)
    four = most_sequences(work("Llama 3.1 8B", "DP4"), H100, 4096)
    assert four.sequences == 4 * one.sequences
    staged = most_sequences(work("Llama 3.1 8B", "PP2"), H100, 4096)
    assert staged.sequences > 2 * one.sequences


def test_a_model_that_is_too_large_has_room_for_none() -> None:
    found = most_sequences(work("Llama 3.1 70B", "TP1"), H100, 4096)
    assert found.sequences == 0
    assert found.needs[found.stage].room < 0


def test_an_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(ParframeError, match="vllm"):
        allocation("vlm")
