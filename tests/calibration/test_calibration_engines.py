"""Constants of engines come back from rows that were made by them."""

import attrs
import numpy as np
import pytest

from benchmarks.calibration.engine_file import text
from benchmarks.calibration.engine_fit import cases, errors, fit, left_out
from benchmarks.calibration.engine_rows import Measured
from benchmarks.calibration.residuals import spread
from parframe.price.predict.predictions import estimate_query
from parframe.price.predict.queries import parse_query
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model
from parframe.price.serving.engines import find_engine, parse_engines, shipped_engines

REGISTRY = Registry(servable_model)
TRUE = attrs.evolve(
    find_engine("vLLM"), matmul=1.0, attention=0.85, step_overhead=2e-3, sequence_overhead=5e-5
)
FREE = ("matmul", "attention", "step_overhead", "sequence_overhead")


def asked(batch, length):
    return parse_query(
        {
            "model": "Llama-2-7B", "weight_dtype": "fp16", "gpu": "A100-SXM4-80GB", "tp": "1",
            "batch": str(batch), "isl": str(length), "osl": str(length), "metric": "e2e_latency",
            "framework": "vLLM",
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """Rows as an engine with known constants would give."""
    blank = [
        Measured("made", asked(batch, length), 1.0)
        for batch in (1, 8, 32)
        for length in (64, 256, 1024)
    ]
    found = cases(blank, REGISTRY)
    return [
        attrs.evolve(case, measured=attrs.evolve(case.measured, value=float(np.exp(off))))
        for case, off in zip(found, errors(found, TRUE), strict=True)
    ]


def test_a_fit_finds_the_constants_that_made_the_rows(made):
    start = attrs.evolve(TRUE, matmul=1.4, step_overhead=1e-4)
    found = fit(made, start, FREE)
    assert np.median(np.abs(errors(made, found))) < 0.02
    assert np.median(np.abs(errors(made, start))) > 0.1
    assert found.matmul == pytest.approx(1.0, rel=0.15)


def test_an_outlier_does_not_move_the_others(made):
    odd = attrs.evolve(made[0], measured=attrs.evolve(made[0].measured, value=1e3))
    found = fit([odd, *made[1:]], TRUE, FREE)
    assert np.median(np.abs(errors(made, found))) < 0.05


def test_what_is_left_out_is_predicted_by_the_others(made):
    off = left_out(made, TRUE, FREE, lambda case: case.measured.asked.prompt)
    assert len(off) == len(made)
    assert np.abs(off).max() < 0.2


def test_a_spread_holds_as_many_as_it_should():
    rng = np.random.default_rng(0)
    off = rng.normal(0, 0.2, 4000)
    assert spread(off, np.zeros(4000)) == pytest.approx(0.2, rel=0.05)
    assert spread(off, np.full(4000, 0.15)) == pytest.approx(np.sqrt(0.2**2 - 0.15**2), rel=0.15)


def test_engines_survive_being_written():
    again = parse_engines(text(shipped_engines()))
    assert [one.name for one in again] == [one.name for one in shipped_engines()]
    for one, other in zip(again, shipped_engines(), strict=True):
        assert one.matmul == pytest.approx(other.matmul, rel=1e-3)
        assert (one.aliases, one.fitted, dict(one.residual).keys()) == (
            other.aliases, other.fitted, dict(other.residual).keys(),
        )  # fmt: skip


def test_every_engine_that_ships_says_what_it_was_fitted_to():
    for one in shipped_engines():
        if one.measured:
            assert one.sources
            assert one.fitted_devices
            assert set(one.residual) <= {"throughput", "tpot", "ttft", "e2e_latency"}


def test_a_case_is_priced_as_its_row_is(made):
    case = made[0]
    assert estimate_query(case.measured.asked, case.found).value > 0
