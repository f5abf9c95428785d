"""Predictions of table rows from shipped data, or reasons why a row cannot be predicted."""

import csv
import json
import subprocess
import sys

import attrs
import pytest
from price_outline import outline

from parframe.models import find_model
from parframe.price.predict.predictions import predict_row
from parframe.price.predict.query_resolution import Layout, Registry
from parframe.price.predict.shipped_models import servable_model

REGISTRY = Registry(servable_model)
ROW = {
    "model": "LLaMA-3.1-8B", "weight_dtype": "fp16", "kv_dtype": "fp16", "gpu": "H100-SXM-80GB",
    "n_gpus": "1", "tp": "1", "pp": "1", "ep": "1", "dp": "1", "batch": "", "concurrency": "inf",
    "isl": "1000", "osl": "1000", "metric": "output_tokens_per_s_total", "unit": "tokens/s",
    "framework": "TensorRT-LLM 0.17",
}  # fmt: skip


def predicted(**cells):
    return predict_row({**ROW, **cells}, REGISTRY)


def width(found):
    return found.high / found.low


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("Llama 3.1 8B", Layout()),
        ("Llama 3.1 70B", Layout(tensor=8)),
        ("Mixtral 8x7B", Layout(tensor=4)),
        ("Mixtral 8x7B", Layout(tensor=8, expert=8)),
        ("Mixtral 8x7B", Layout(tensor=8, expert=4)),
        ("Qwen3 235B-A22B", Layout(expert=8, data=8)),
        ("DeepSeek-V3", Layout(tensor=8)),
    ],
)
def test_the_footprint_of_a_layout_agrees_with_the_configuration(name, layout):
    found, by_hand = servable_model(name).work(layout), outline(find_model(name).name, layout)
    assert (found.devices, found.replicas) == (by_hand.devices, by_hand.replicas)
    footprint, expected = found.stages[0].footprint, by_hand.stages[0].footprint
    assert footprint.weights == expected.weights
    assert footprint.unquantized == pytest.approx(expected.unquantized, rel=1e-3)
    assert footprint.cache == expected.cache
    assert footprint.batch_share == expected.batch_share


def test_a_prediction_has_an_interval_and_notes():
    found = predicted()
    assert found.low < found.value < found.high
    assert "limited by KV cache memory" in found.why


def test_a_row_may_have_empty_cells():
    row = {"model": "LLaMA-3.1-8B", "gpu": "H100", "metric": "tpot", "isl": "100", "osl": "10"}
    found = predict_row(row, REGISTRY)
    assert found.value > 0
    assert "bf16 weights assumed" in found.why
    assert "median engine assumed" in found.why


@pytest.mark.parametrize(
    ("cells", "lacking"),
    [
        ({"metric": "ttft", "unit": "ms", "batch": "4", "concurrency": ""}, "isl"),
        ({"metric": "e2e_latency", "unit": "s", "batch": "4", "concurrency": ""}, "isl"),
        ({"metric": "tpot", "unit": "ms", "concurrency": "16"}, "isl"),
        ({}, "isl"),
        ({"isl": "1000"}, "osl"),
    ],
)
def test_lengths_that_a_metric_needs_are_not_assumed(cells, lacking):
    found = predicted(**{"isl": "", "osl": "", **cells})
    assert found.value is None
    assert found.why.startswith(f"column {lacking}")


def test_tpot_of_a_batch_notes_the_assumed_lengths():
    cells = {"metric": "tpot", "unit": "ms", "batch": "4", "concurrency": ""}
    found = predicted(**cells, isl="", osl="")
    assert "isl=0 assumed; osl=128 assumed" in found.why
    assert width(found) > width(predicted(**cells, isl="1", osl="128"))


def test_an_unmeasured_engine_or_device_widens_the_interval():
    known = predicted()
    assert width(predicted(gpu="MI300X")) > 1.1 * width(known)
    assert width(predicted(framework="something new")) > width(known)


def test_unmeasured_pipeline_parallelism_widens_the_interval():
    known = predicted(n_gpus="4", tp="4")
    piped = predicted(n_gpus="4", tp="2", pp="2")
    assert width(piped) > width(known)
    assert "pipeline parallelism was not measured" in piped.why


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"model": "Nonesuch-7B"}, "not a shipped model"),
        ({"gpu": "Voodoo 2"}, "no such GPU"),
        ({"model": "Llama-2-70B", "gpu": "L4"}, "weights need"),
        ({"metric": "joy"}, "unknown metric"),
        ({"n_gpus": "3", "tp": "2"}, "not a multiple"),
        ({"tp": "x"}, "column tp"),
        ({"metric": "ttft", "unit": "ms"}, "grows"),
    ],
)
def test_a_row_that_cannot_be_predicted_has_a_reason(cells, why):
    found = predicted(**cells)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert why in found.why


def test_a_unit_scales_the_prediction():
    common = {"batch": "4", "concurrency": "4", "metric": "tpot"}
    assert predicted(**common, unit="ms").value == pytest.approx(
        1e3 * predicted(**common, unit="s").value
    )


def test_several_instances_divide_the_load():
    one, two = predicted(), predicted(n_gpus="2")
    assert two.value == pytest.approx(2 * one.value)
    each = predicted(n_gpus="2", metric="output_tokens_per_s_per_gpu")
    assert each.value == pytest.approx(one.value)


def test_the_request_rate_is_the_offered_rate_below_saturation():
    online = {"framework": "TensorRT-LLM 0.14.0 + tensorrtllm_backend", "metric": "requests_per_s"}
    light = predicted(**online, concurrency="qps=2", unit="req/s")
    heavy = predicted(**online, concurrency="qps=inf", unit="req/s")
    assert light.value == pytest.approx(2, rel=0.05)
    assert width(light) < 1.2 < width(heavy)


def test_metrics_of_one_batch_are_consistent():
    batch = {"batch": "8", "concurrency": "8"}
    whole = predicted(**batch, metric="e2e_latency", unit="s").value
    total = predicted(**batch, metric="total_tokens_per_s").value
    output = predicted(**batch, metric="output_tokens_per_s_total").value
    assert total == pytest.approx(8 * 2000 / whole)
    assert output == pytest.approx(8 * 1000 / whole)


def test_more_devices_reduce_tpot():
    times = [
        predicted(
            n_gpus=str(n), tp=str(n), batch="1", concurrency="1", metric="tpot", unit=""
        ).value
        for n in (1, 2, 4, 8)
    ]
    assert times == sorted(times, reverse=True)


def test_a_registry_may_have_engines_of_its_own():
    slow = tuple(attrs.evolve(own, step_overhead=1.0) for own in REGISTRY.engines)
    row = {**ROW, "metric": "tpot", "unit": "s", "batch": "1"}
    found = predict_row(row, attrs.evolve(REGISTRY, engines=slow))
    assert found.value > 1.0


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [{**ROW, "extra": "kept", "predicted": "old"}, {**ROW, "model": "Nonesuch-7B"}]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*ROW, "extra", "predicted"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_command_adds_columns_and_needs_no_torch(table):
    out = table.with_name("out.csv")
    script = (
        "import sys\nfrom parframe.cli import group\nfrom parframe.cli.failures import run\n"
        f"code = run(group, ['predict', {str(table)!r}, '-o', {str(out)!r}, '--json'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["rows"], facts["predicted"]) == (2, 1)
    with out.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["extra"] == "kept"
    assert float(first["low"]) < float(first["predicted"]) < float(first["high"])
    assert second["predicted"] == second["low"] == second["high"] == ""
    assert "not a shipped model" in second["why"]


def test_a_table_without_a_required_column_is_an_error(call, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\nx,y\n")
    result = call("predict", str(path), "-o", str(tmp_path / "out.csv"))
    assert result.code != 0
    assert "has no column 'metric'" in result.err
