"""The constants that ship predict the tables that they were fitted to, and intervals hold."""

from pathlib import Path

import pytest

from benchmarks.calibration.engine_rows import TABLES, read_table
from benchmarks.calibration.validation import by_engine, chosen, fitted_outcomes, summary
from parframe.price.predict.query_resolution import Basis
from parframe.price.predict.shipped_models import model

FOLDER = Path(__file__).parents[3] / "shared" / "measurements"


@pytest.fixture(scope="module")
def outcomes():
    if not all((FOLDER / name).is_file() for name in TABLES):
        pytest.skip("the tables of measurements are not beside the checkout")
    rows = [row for name in TABLES for row in read_table(FOLDER / name)]
    return fitted_outcomes(rows, Basis(model))


@pytest.mark.parametrize(
    ("table", "most"),
    [
        ("trtllm_throughput_ifb.csv", 0.08),
        ("trtllm_static_batch.csv", 0.08),
        ("gptfast.csv", 0.08),
        ("argonne_tp_pp_ep.csv", 0.08),
        ("argonne_all_gpu_latency.csv", 0.08),
    ],
)
def test_the_usual_error_of_a_table_is_small(outcomes, table, most):
    own = [one for one in outcomes if one.case.measured.table == table]
    (found,) = summary(own, lambda one: (table,))
    assert found.rows > 15
    assert found.median < most


def test_intervals_hold_four_fifths_of_what_was_measured(outcomes):
    (found,) = summary(outcomes, lambda one: ("all",))
    assert found.rows > 1000
    assert 0.75 <= found.held <= 0.9


def test_errors_are_told_by_engine_and_metric(outcomes):
    named = {line.what for line in summary(outcomes, by_engine)}
    assert ("vLLM", "e2e_latency") in named
    assert ("TensorRT-LLM 1", "tpot") in named


def test_predictions_choose_well_among_configurations(outcomes):
    found = chosen(outcomes)
    assert found.cases > 100
    assert found.exact > 0.6
    assert found.violated < 0.12
    assert found.regret < 0.08
