import json

import attrs
import pytest

import parframe
from parframe.errors import ParframeError
from parframe.hardware import MeasuredCollective, Speeds, catalog
from parframe.measurement.engine_overhead import (
    ModelRun,
    ModelRuns,
    add_engine,
    predict_latency,
)
from parframe.measurement.hardware_file import format_hardware_file
from parframe.measurement.machine import build_machine
from parframe.measurement.rank_measurement import MeasurementSettings, measure_ranks
from parframe.measurement.samples import Times, estimate_over_rounds, summarize_times
from parframe.measurement.token_timing import TokenTimes, summarize_latency
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.communication_times import communication_time
from parframe.price.serving.engines import Engine, find_engine_on
from parframe.price.work.work import Communication
from parframe.price.work.work_from_plan import work_from_plan

SPEEDS = "sizes = [1, 512]\ngiga_per_s = [{}, {}]\n"


def device(key, speed):
    lines = [
        f'[device.{key}]\nname = "here"\ndense_tflops = {{ fp32 = 0.2 }}\nmemory_gib = 8\n'
        f"bandwidth_gb_s = {4 * speed}\n"
    ]
    for operator in ("product", "decode", "prompt", "pointwise"):
        low = speed / 10 if operator == "product" else 100 * speed
        lines.append(f"[device.{key}.measured.{operator}.fp32]\n" + SPEEDS.format(100 * speed, low))
    return "".join(lines)


def box(ranks, speed, alone=None):
    key = f"here_{ranks}"
    more = f'alone = "{key}_alone"\n' if alone else ""
    return (
        device(key, speed)
        + (device(f"{key}_alone", alone) if alone else "")
        + f'[machine.{key}]\nname = "here"\ndevice = "{key}"\ngpus = {ranks}\n{more}'
        f"divided = {ranks}\npcie = {{ gb_s = 5 }}\n"
        f"[machine.{key}.engine.parframe]\nstep_overhead = 0.001\nreserved_bytes = 1e8\n"
        "cache_fraction = 1.0\nstatic_batching = true\nall_logits = true\n"
        f"[[machine.{key}.collective]]\n"
        'kind = "all_reduce"\nranks = 2\nbytes = [1024, 1048576]\nus = [100, 1000]\n'
        f"[[machine.{key}.collective]]\n"
        'kind = "send"\nranks = 2\nbytes = [1024, 1048576]\nus = [50, 500]\n'
    )


HERE = box(1, 2) + box(2, 1, alone=1.5)

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256,
}  # fmt: skip
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


def test_an_estimate_is_what_the_file_says(graph, tmp_path):
    usual = point(graph, "TP1", "1xhere", HERE, tmp_path).tpot.value
    slower = point(graph, "TP1", "1xhere", box(1, 0.2), tmp_path).tpot.value
    assert slower - 1e-3 == pytest.approx(10 * (usual - 1e-3))
    step = HERE.replace("step_overhead = 0.001", "step_overhead = 0.003")
    assert point(graph, "TP1", "1xhere", step, tmp_path).tpot.value == pytest.approx(usual + 2e-3)


def test_exchanges_of_a_measured_box_take_what_was_measured(graph, tmp_path):
    usual = point(graph, "TP2", "2xhere", HERE, tmp_path).tpot.value
    longer = HERE.replace("us = [100, 1000]", "us = [200, 2000]")
    more = point(graph, "TP2", "2xhere", longer, tmp_path).tpot.value - usual
    assert more == pytest.approx(9 * 100e-6, rel=0.05)  # two in each layer, one of the embedding
    boxes = catalog([HERE]).cluster("2xhere")
    found = communication_time(Communication("all_reduce", 1, (0, 1)), 32768, boxes)
    assert found.value == pytest.approx(100e-6 * 10**0.5)
    assert communication_time(Communication("all_reduce", 1, (0, 1)), 2**21, boxes).value == 2000e-6


def test_stages_that_take_turns_have_the_machine_to_themselves(graph, tmp_path):
    usual = point(graph, "PP2", "2xhere", HERE, tmp_path).tpot.value
    alike = point(graph, "PP2", "2xhere", box(2, 1, alone=1), tmp_path).tpot.value
    tensor = point(graph, "TP2", "2xhere", HERE, tmp_path).tpot.value
    assert tensor == point(graph, "TP2", "2xhere", box(2, 1, alone=1), tmp_path).tpot.value
    spent = 1e-3 + 50e-6
    assert alike - spent == pytest.approx(1.5 * (usual - spent), rel=0.01)


def test_the_number_of_devices_chooses_the_division():
    known = catalog([HERE])
    assert known.cluster("1xhere").machine.key == "here_1"
    assert known.cluster("2xhere").machine.key == "here_2"
    with pytest.raises(ParframeError, match=r"3xhere: was measured with 1, 2 ranks only"):
        known.cluster("3xhere")


@pytest.mark.parametrize(
    ("change", "told"),
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
def test_a_wrong_file_is_refused_with_the_key(change, told):
    assert change[0] in HERE
    with pytest.raises(ParframeError) as caught:
        catalog([HERE.replace(*change, 1)])
    assert caught.value.kind == "hardware"
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
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
def test_a_wrong_engine_is_refused_with_the_key(change, told):
    machine = catalog([HERE.replace(*change, 1)]).cluster("1xhere").machine
    with pytest.raises(ParframeError) as caught:
        find_engine_on(machine)
    assert told in str(caught.value)


def test_a_machine_without_a_network_is_one_node():
    with pytest.raises(ParframeError, match="the machine has 1 devices and no network to others"):
        catalog([box(1, 2).replace("divided = 1\n", "")]).cluster("2xhere")


def test_files_of_several_machines_are_taken_together():
    other = HERE.replace("here", "there")
    known = catalog([HERE, other])
    assert known.cluster("2xthere").machine.key == "there_2"
    assert known.cluster("2xhere").machine.key == "here_2"


def test_speeds_between_sizes_follow_their_logarithms():
    speeds = Speeds((1.0, 100.0), (10.0, 1000.0))
    assert speeds.at(10) == pytest.approx(100)
    assert (speeds.at(0.1), speeds.at(1e6)) == (10, 1000)
    exchanged = MeasuredCollective("send", 2, (100.0, 10000.0), (1.0, 10.0))
    assert (exchanged.time(1), exchanged.time(1000)) == (1.0, pytest.approx(10**0.5))


def test_a_written_file_is_read_as_what_was_measured():
    machine = catalog([HERE]).cluster("2xhere").machine
    again = catalog([format_hardware_file([machine])]).cluster("2xhere").machine
    assert again.device.measured == machine.device.measured
    assert again.alone.measured == machine.alone.measured
    assert (again.collectives, again.engines) == (machine.collectives, machine.engines)


def test_overheads_are_found_again_from_predicted_runs():
    machine = attrs.evolve(catalog([HERE]).cluster("2xhere").machine, engines={})
    planted = Engine(
        "parframe", step_overhead=2e-3, layer_overhead=1e-4, prefill_overhead=3e-4,
        stage_overhead=5e-4, request_overhead=4e-3, communication=1.2, static_batching=True,
        all_logits=True, max_batched_tokens=512,
    )  # fmt: skip

    def run(layers, composite):
        graph = parframe.load({**LLAMA, "num_hidden_layers": layers})
        work = work_from_plan(parframe.partition(graph, composite))
        bare = ModelRun(work, layers, "fp32", None, None)
        tpot, ttft = predict_latency(bare, machine, planted)
        return attrs.evolve(bare, tpot=Times(tpot, tpot), ttft=Times(ttft, ttft))

    runs = ModelRuns(
        (run(2, "TP2"), run(6, "TP2")),
        (run(2, "PP2"), run(6, "PP2")),
        (run(4, "TP2"), run(4, "PP2")),
    )
    engine = find_engine_on(add_engine(machine, runs, 1000, "p10"))
    for name in (
        "step_overhead", "layer_overhead", "prefill_overhead", "stage_overhead",
        "request_overhead", "communication",
    ):  # fmt: skip
        assert getattr(engine, name) == pytest.approx(getattr(planted, name)), name
    assert engine.residual == {
        "tpot": pytest.approx(0, abs=1e-6),
        "ttft": pytest.approx(0, abs=1e-6),
    }


def test_estimates_over_rounds_take_the_median_or_the_fastest_round():
    assert summarize_times([1.0] * 5 + [9.0] * 6) == Times(1.0, 9.0)
    rounds = [Times(4.0, 4.0), Times(1.0, 1.0), Times(1.0, 1.0), Times(3.0, 3.0)]
    assert estimate_over_rounds(rounds, "p10") == (1.0, 0.0)
    assert estimate_over_rounds(rounds, "median")[0] == 2.0
    within = estimate_over_rounds([Times(1.0, 1.1)], "p10")[1]
    assert estimate_over_rounds(rounds, "median")[1] > within > 0


def test_latencies_are_medians_over_all_prompts_and_batches():
    one = TokenTimes(1.0, ((1.5, 2.0, 2.5, 3.0),) * 2)
    other = TokenTimes(3.0, ((3.7, 4.2, 4.7, 5.2),) * 2)
    latency = summarize_latency([one, other, one])
    assert latency["ttft_ms"] == 500
    assert latency["tpot_ms"] == pytest.approx(500)
    assert latency["tokens_per_second_per_user"] == 2
    assert latency["output_tokens_per_second"] == 4


def test_tokens_that_are_received_together_count_with_their_mean():
    late = TokenTimes(0.0, ((1.0, 1.004, 1.004, 1.008, 1.008, 1.012),))
    assert max(late.window_means(8e-3)) == pytest.approx(2e-3, rel=0.21)
    steady = TokenTimes(0.0, ((1.0, 1.02, 1.04, 1.06),))
    assert steady.window_means() == pytest.approx([0.02] * 3)


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
    ("arguments", "told"),
    [
        (("--ranks", "0"), "error[usage] --ranks: '0' is not from 1 to"),
        (("--ranks", "2,many"), "error[usage] --ranks: 'many' is not from 1 to"),
        (("--name", "My Box"), "error[usage] --name: is 'My Box'"),
    ],
)
def test_invalid_options_are_an_error_before_anything_is_measured(call, tmp_path, arguments, told):
    answer = call("measure", "-o", tmp_path / "here.toml", *arguments)
    assert answer.code != 0
    assert told in answer.err


def test_a_missing_output_folder_is_an_error_before_anything_is_measured(call, tmp_path):
    answer = call("measure", "-o", tmp_path / "none" / "here.toml")
    assert answer.err.startswith("error[output]")
    assert "there is no folder" in answer.err


def test_a_spec_in_float32_is_priced_in_it_where_the_device_can(call, tmp_path):
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
