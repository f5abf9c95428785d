"""Hardware files that `parframe measure` writes, and estimates on them."""

import json

import pytest
from measured_machine import HERE, LLAMA, machine_toml

import parframe
from parframe.errors import ParframeError
from parframe.hardware import MeasuredCollective, Speeds, catalog
from parframe.measurement.hardware_file import format_hardware_file
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.communication_times import communication_time
from parframe.price.serving.engines import find_engine_on
from parframe.price.work.work import Communication

ONE = UseCase("one", "one prompt", 32, 64, 1)


@pytest.fixture(scope="module")
def graph():
    return parframe.load(LLAMA)


def point(graph, composite, devices, text, tmp_path):
    path = tmp_path / "here.toml"
    path.write_text(text)
    plan = parframe.partition(graph, composite)
    found = parframe.estimate(plan, devices, ONE, weights="fp32", cache="fp32", hardware=[path])
    return found.points[0]


def test_an_estimate_follows_the_speeds_of_the_file(graph, tmp_path):
    usual = point(graph, "TP1", "1xhere", HERE, tmp_path).tpot.value
    slower = point(graph, "TP1", "1xhere", machine_toml(1, 0.2), tmp_path).tpot.value
    assert slower - 1e-3 == pytest.approx(10 * (usual - 1e-3))
    step = HERE.replace("step_overhead = 0.001", "step_overhead = 0.003")
    assert point(graph, "TP1", "1xhere", step, tmp_path).tpot.value == pytest.approx(usual + 2e-3)


def test_collectives_of_a_measured_machine_take_the_measured_time(graph, tmp_path):
    usual = point(graph, "TP2", "2xhere", HERE, tmp_path).tpot.value
    longer = HERE.replace("us = [100, 1000]", "us = [200, 2000]")
    more = point(graph, "TP2", "2xhere", longer, tmp_path).tpot.value - usual
    assert more == pytest.approx(9 * 100e-6, rel=0.05)  # two in each layer, one of the embedding
    cluster = catalog([HERE]).cluster("2xhere")
    found = communication_time(Communication("all_reduce", 1, (0, 1)), 32768, cluster)
    assert found.value == pytest.approx(100e-6 * 10**0.5)
    assert (
        communication_time(Communication("all_reduce", 1, (0, 1)), 2**21, cluster).value == 2000e-6
    )


def test_pipeline_stages_have_the_speeds_of_a_rank_alone(graph, tmp_path):
    usual = point(graph, "PP2", "2xhere", HERE, tmp_path).tpot.value
    alike = point(graph, "PP2", "2xhere", machine_toml(2, 1, alone=1), tmp_path).tpot.value
    tensor = point(graph, "TP2", "2xhere", HERE, tmp_path).tpot.value
    assert tensor == point(graph, "TP2", "2xhere", machine_toml(2, 1, alone=1), tmp_path).tpot.value
    spent = 1e-3 + 50e-6
    assert alike - spent == pytest.approx(1.5 * (usual - spent), rel=0.01)


def test_the_number_of_devices_selects_the_measured_machine():
    known = catalog([HERE])
    assert known.cluster("1xhere").machine.key == "here_1"
    assert known.cluster("2xhere").machine.key == "here_2"
    with pytest.raises(ParframeError, match=r"3xhere: was measured with 1, 2 ranks only"):
        known.cluster("3xhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("measured.product", "measured.produkt"),
            "has an unknown key 'produkt' (did you mean 'product'?)",
        ),
        (("sizes = [1, 512]", "sizes = [512, 1]"), "strictly ascending"),
        (("giga_per_s = [200, 0.2]", "giga_per_s = [200]"), "has 1 numbers, and 'sizes' has 2"),
        (
            ("giga_per_s = [200, 0.2]", 'giga_per_s = "many"'),
            "give a list of numbers from 1e-06 to 1e+18",
        ),
        (('alone = "here_2_alone"', 'alone = "there"'), "which is not the key of a device"),
        (("[[machine.here_1.collective]]", "[machine.here_1.collective]"), "TOML"),
        (
            ("us = [100, 1000]", "ms = [100, 1000]"),
            "collective 1: has an unknown key 'ms'; use only kind",
        ),
        (("divided = 1", "divided = 0"), "is 0; give a whole number of at least 1"),
    ],
)
def test_a_wrong_file_is_an_error_with_the_key(change, message):
    assert change[0] in HERE
    with pytest.raises(ParframeError) as caught:
        catalog([HERE.replace(*change, 1)])
    assert caught.value.kind == "hardware"
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("step_overhead = 0.001", "step_overhea = 0.001"),
            "unknown key 'step_overhea' (did you mean 'step_overhead'?)",
        ),
        (
            ("step_overhead = 0.001", "step_overhead = -1"),
            "step_overhead: -1 is not a number of 0 or more; set a number of 0 or more",
        ),
        (
            ("static_batching = true", "static_batching = 1"),
            "engine.parframe.static_batching: 1 is not a boolean; set true or false",
        ),
    ],
)
def test_a_wrong_engine_is_an_error_with_the_key(change, message):
    machine = catalog([HERE.replace(*change, 1)]).cluster("1xhere").machine
    with pytest.raises(ParframeError) as caught:
        find_engine_on(machine)
    assert message in str(caught.value)


def test_a_machine_without_a_network_is_one_node():
    with pytest.raises(ParframeError, match="the machine has 1 devices and no network to others"):
        catalog([machine_toml(1, 2).replace("divided = 1\n", "")]).cluster("2xhere")


def test_files_of_several_machines_are_merged():
    other = HERE.replace("here", "there")
    known = catalog([HERE, other])
    assert known.cluster("2xthere").machine.key == "there_2"
    assert known.cluster("2xhere").machine.key == "here_2"


def test_speeds_are_interpolated_on_logarithms():
    speeds = Speeds((1.0, 100.0), (10.0, 1000.0))
    assert speeds.at(10) == pytest.approx(100)
    assert (speeds.at(0.1), speeds.at(1e6)) == (10, 1000)
    collective = MeasuredCollective("send", 2, (100.0, 10000.0), (1.0, 10.0))
    assert (collective.time(1), collective.time(1000)) == (1.0, pytest.approx(10**0.5))


def test_a_written_file_reads_back_equal():
    machine = catalog([HERE]).cluster("2xhere").machine
    again = catalog([format_hardware_file([machine])]).cluster("2xhere").machine
    assert again.device.measured == machine.device.measured
    assert again.alone.measured == machine.alone.measured
    assert (again.collectives, again.engines) == (machine.collectives, machine.engines)


def test_a_spec_in_float32_is_priced_in_float32_on_a_measured_device(call, tmp_path):
    (tmp_path / "here.toml").write_text(HERE)
    config = "".join(f"{key} = {json.dumps(value)}\n" for key, value in LLAMA.items())
    (tmp_path / "spec.toml").write_text(
        f'parallel = "TP2"\ndevices = 2\n[model]\nkind = "demo"\n[model.config]\n{config}'
    )
    answer = call(
        "estimate", tmp_path / "spec.toml", "--hardware", tmp_path / "here.toml",
        "--devices", "2xhere", "--prompt-tokens", 32, "--output-tokens", 64, "--json",
    )  # fmt: skip
    facts = json.loads(answer.out)
    assert facts["engine"] == "parframe"
    assert facts["points"][0]["tpot_ms"][1] > 1
    elements = parframe.load(LLAMA).parameters.values()
    whole = sum(4 * parameter.elements for parameter in elements)
    assert whole / 2 < facts["weight_bytes"] < whole
