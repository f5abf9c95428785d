"""The constants that ship predict the tables that they were fitted to, and intervals hold."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.calibration.engine_rows import TABLES, TRACES, Measured, read_folder, read_table
from benchmarks.calibration.fitted_rows import fitted_ids, record, recorded_ids, split_rows
from benchmarks.calibration.validation import by_engine, chosen, shipped_outcomes, summary
from parframe.price.predict.queries import parse_query
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model
from parframe.price.serving.engines import find_engine, shipped_engines

FOLDER = Path(__file__).parents[3] / "shared" / "measurements"


@pytest.fixture(scope="module")
def outcomes():
    if not all((FOLDER / name).is_file() for name in TABLES):
        pytest.skip("the tables of measurements are not next to the checkout")
    rows, _ = split_rows(row for name in TABLES for row in read_table(FOLDER / name))
    return shipped_outcomes(rows, Registry(servable_model))


def test_rows_that_constants_were_not_fitted_to_are_held_out():
    if not all((FOLDER / name).is_file() for name in (*TABLES, TRACES)):
        pytest.skip("the tables of measurements are not next to the checkout")
    rows = read_folder(FOLDER)
    fitted, held_out = split_rows(rows)
    assert {row.id for row in fitted} == fitted_ids()
    assert not {row.id for row in held_out} & fitted_ids()
    assert len(fitted) + len(held_out) == len(rows)
    counts = Counter((find_engine(row.asked.framework).name, row.table) for row in fitted)
    assert counts == {
        (one.name, table): count
        for one in shipped_engines()
        for table, count in one.sources.items()
    }


def test_a_record_of_rows_gives_back_their_ids():
    numbers = (1, 2, 3, 7, 9, 10)
    rows = [Measured("a.csv", parse_query({}), 1.0, f"a-{number:05d}") for number in numbers]
    text = record(rows)
    assert '"a.csv" = "1-3 7 9-10"' in text
    assert recorded_ids(text) == {row.id for row in rows}


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
    assert 0.75 <= found.inside <= 0.9


def test_errors_are_reported_by_engine_and_metric(outcomes):
    named = {line.what for line in summary(outcomes, by_engine)}
    assert ("vLLM", "e2e_latency") in named
    assert ("TensorRT-LLM 1", "tpot") in named


def test_predictions_choose_well_among_configurations(outcomes):
    found = chosen(outcomes)
    assert found.cases > 100
    assert found.exact > 0.6
    assert found.violated < 0.12
    assert found.regret < 0.08
