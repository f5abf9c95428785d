"""`parframe measure`: its options, and a measurement with two ranks."""

import pytest

from parframe.hardware import catalog
from parframe.measurement.hardware_file import format_hardware_file
from parframe.measurement.machine import build_machine
from parframe.measurement.rank_measurement import MeasurementSettings, measure_ranks


@pytest.mark.slow
def test_two_ranks_measure_kernels_and_collectives():
    sizes = {"megabytes": 20.0, "rows": (1, 8), "positions": (32,), "seconds": 0.0}
    settings = MeasurementSettings("here", 2, sizes=sizes, collective_repeats=2)
    measurements = measure_ranks(settings)
    machine = build_machine(settings, measurements, "median")
    assert (machine.per_node, machine.divided) == (2, 2)
    assert machine.device.rates.keys() == {"fp32"}
    assert machine.device.memory == machine.alone.memory > 0
    for device in (machine.device, machine.alone):
        product = device.measured["product"]["fp32"]
        assert product.sizes == (1.0, 8.0)
        assert 1e7 < product.speeds[1] < 1e12
    kinds = {times.kind for times in machine.collectives}
    assert {"all_reduce", "all_gather", "send"} <= kinds
    assert all(0 < seconds < 10 for times in machine.collectives for seconds in times.seconds)
    assert measurements.resident_bytes > 1e7
    assert catalog([format_hardware_file([machine])]).cluster("2xhere").devices == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "0"), "error[usage] --ranks: '0' is not a number from 1 to"),
        (("--ranks", "2,many"), "error[usage] --ranks: 'many' is not a number from 1 to"),
        (("--name", "My Box"), "error[usage] --name: is 'My Box'"),
    ],
)
def test_invalid_options_are_an_error_before_anything_is_measured(
    call, tmp_path, arguments, message
):
    answer = call("measure", "-o", tmp_path / "here.toml", *arguments)
    assert answer.code != 0
    assert message in answer.err


def test_a_missing_output_folder_is_an_error_before_measuring(call, tmp_path):
    answer = call("measure", "-o", tmp_path / "none" / "here.toml")
    assert answer.err.startswith("error[output]")
    assert "there is no folder" in answer.err
