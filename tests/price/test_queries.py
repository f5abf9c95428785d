"""Parsing of table rows, metrics and units; errors for invalid cells."""

import math

import pytest

from parframe.errors import ParframeError
from parframe.price.predict.metrics import METRICS, metric_name, unit_size
from parframe.price.predict.queries import parse_query


def test_an_empty_cell_is_none():
    asked = parse_query({"model": "m", "gpu": "g", "metric": "ttft", "tp": "", "kv_dtype": ""})
    assert asked.tensor is None
    assert asked.cache is None
    assert asked.batch is None


def test_a_batch_in_words_is_none():
    asked = parse_query({"batch": "max (in-flight batching, not reported)", "concurrency": "inf"})
    assert asked.batch is None
    assert asked.concurrency == math.inf


def test_a_request_rate_is_not_a_concurrency():
    asked = parse_query({"concurrency": "qps=4", "notes": "online serving, 500 requests, averages"})
    assert (asked.concurrency, asked.request_rate, asked.requests) == (None, 4.0, 500.0)
    assert parse_query({"concurrency": "qps=INF"}).request_rate == math.inf


def test_a_range_of_requests_is_ignored():
    assert parse_query({"notes": "30000..1000 requests per point"}).requests is None


@pytest.mark.parametrize(
    ("cell", "dtype"), [("bf16?", "bf16"), ("FP8 (block)", "fp8"), ("AWQ", "int4")]
)
def test_dtypes_are_parsed_in_all_spellings(cell, dtype):
    assert parse_query({"weight_dtype": cell}).weights == dtype


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("tp", "1.5"),
        ("tp", "0"),
        ("isl", "-3"),
        ("osl", "nan"),
        ("isl", "1e308"),
        ("isl", "1e-320"),
        ("n_gpus", "1e18"),
        ("batch", "nan"),
        ("batch", "-inf"),
        ("batch", "0"),
        ("concurrency", "0.1"),
        ("weight_dtype", "fp99"),
        ("concurrency", "rate=x"),
    ],
)
def test_an_invalid_cell_is_an_error_with_its_column(column, cell):
    with pytest.raises(ParframeError) as refused:
        parse_query({column: cell})
    assert column in str(refused.value)


def test_no_expert_parallelism_is_also_written_as_zero():
    assert parse_query({"ep": "0"}).expert == parse_query({"ep": "1"}).expert == 1
    assert parse_query({"ep": ""}).expert is None


def test_metrics_are_found_by_their_aliases():
    assert metric_name("mean_itl") == "tpot"
    assert metric_name("Median TTFT") == "ttft"
    with pytest.raises(ParframeError, match="did you mean 'tpot'"):
        metric_name("tpott")


def test_a_unit_must_fit_the_metric():
    assert unit_size("ms", METRICS["ttft"]) == 1e-3
    assert unit_size("", METRICS["achieved_mem_bw_per_gpu"]) == 1e9
    with pytest.raises(ParframeError):
        unit_size("tokens/s", METRICS["ttft"])
