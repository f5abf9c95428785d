import json
from pathlib import Path
from statistics import fmean, median

import pytest

from parframe.errors import ParframeError
from parframe.hardware import Cluster, catalog, cluster, shipped
from parframe.price.cost import communication_times
from parframe.price.cost.collective_model import KINDS
from parframe.price.cost.communication_times import communication_time, implementation_of
from parframe.price.work.work import Communication

MEASURED = Path(__file__).parents[3] / "shared" / "measurements"
here = pytest.mark.skipif(not MEASURED.is_dir(), reason="the tables of measured times are not here")

KIB, MIB = 2**10, 2**20


def seconds(text, kind, ranks, size, implementation="nccl"):
    collective = Communication(kind, 1, tuple(ranks))
    return communication_time(collective, size, cluster(text), implementation).value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["16xH100", "16xL40S", "8xMI300X", "144xGB200", "8xRTX 4090"])
def test_a_longer_message_never_takes_less(kind, text):
    whole = cluster(text).devices
    for ranks in (range(2), range(0, whole, whole // 2), range(whole)):
        if kind == "send" and len(ranks) > 2:
            continue
        times = [seconds(text, kind, ranks, 4.0**power) for power in range(2, 16)]
        assert times == sorted(times)
        assert times[0] > 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "send"])
@pytest.mark.parametrize("size", [KIB, MIB, 64 * MIB])
def test_no_collective_is_faster_than_its_links(kind, size):
    for machine in shipped().machines.values():
        boxes = Cluster(machine, 16)
        for ranks in (2, 4, 8, 16):
            collective = Communication(kind, 1, tuple(range(ranks)))
            span = boxes.span(collective.ranks)
            found = communication_time(collective, size, boxes, "vllm")
            fastest = max(link.bandwidth for link in (machine.within, machine.pcie))
            assert found.value > size * (ranks - 1) / ranks / fastest
            if span.outer is not None:
                share = size / span.domains / span.ranks_per_domain
                assert found.value > share / span.outer.bandwidth


def test_a_collective_of_one_rank_or_no_bytes_takes_no_time():
    boxes = cluster("8xH100")
    assert communication_time(Communication("all_reduce", 1, (3,)), MIB, boxes).value == 0
    assert communication_time(Communication("all_reduce", 1, (0, 1)), 0, boxes).value == 0


def test_crossing_nodes_costs_more_than_staying():
    for kind in KINDS:
        within = seconds("16xH100", kind, [0, 1], 64 * MIB)
        assert seconds("16xH100", kind, [0, 8], 64 * MIB) > 2 * within
    within = seconds("16xH100", "all_reduce", range(8), 64 * MIB)
    assert seconds("16xH100", "all_reduce", range(0, 16, 2), 64 * MIB) > within


def test_an_engines_own_all_reduce_is_faster_for_short_messages_alone():
    for engine in ("vllm", "trtllm"):
        assert seconds("8xH100", "all_reduce", range(8), 16 * KIB, engine) < 0.5 * seconds(
            "8xH100", "all_reduce", range(8), 16 * KIB
        )
        long = seconds("8xH100", "all_reduce", range(8), 512 * MIB, engine)
        assert long == seconds("8xH100", "all_reduce", range(8), 512 * MIB)


def test_without_a_graph_the_host_is_waited_for():
    graph = seconds("8xH100", "all_reduce", range(8), KIB, "vllm")
    assert seconds("8xH100", "all_reduce", range(8), KIB, "vllm_eager") > 3 * graph


def test_a_pair_in_a_mesh_is_slower_than_eight():
    pair = seconds("8xMI300X", "all_reduce", range(2), 256 * MIB)
    eight = seconds("8xMI300X", "all_reduce", range(8), 256 * MIB)
    assert pair > 3 * eight
    # bus bandwidths of 47.7 and 312.9 GB/s were measured, and are no part of the fit
    assert 256 * MIB / pair / 1e9 == pytest.approx(47.7, rel=0.15)
    assert 256 * MIB * 2 * 7 / 8 / eight / 1e9 == pytest.approx(312.9, rel=0.15)


@pytest.mark.parametrize(
    ("text", "ranks", "note"),
    [
        ("8xH100", range(8), None),
        ("8xB200", range(8), "communication between B200 SXM was not measured"),
        ("8xRTX 4090", range(8), "communication over the PCIe of rtx_4090 was not measured"),
        ("16xL40S", range(16), "communication over the Ethernet of l40s was not measured"),
        ("16xH100", range(16), None),
        ("16xH100 A3 Mega", range(16), None),
        ("72xGB200", range(72), "groups of more than 8 ranks on one link were not measured"),
    ],
)
def test_collectives_without_measurements_have_a_note_and_a_larger_error(text, ranks, note):
    collective = Communication("all_reduce", 1, tuple(ranks))
    found = communication_time(collective, MIB, cluster(text))
    known = communication_time(
        Communication("all_reduce", 1, tuple(range(8))), MIB, cluster("8xH100")
    )
    assert (note in found.notes) if note else not found.notes
    assert (found.log_std > known.log_std) if note else (found.log_std < 0.5)


def test_a_machine_of_ones_own_has_a_price_by_its_links():
    text = """
[device.acme]
name = "Acme"
dense_tflops = { bf16 = 400 }
memory_gib = 96
bandwidth_gb_s = 3200
power_w = 500
[machine.acme_box]
device = "acme"
gpus = 8
link = { kind = "AcmeLink", gpus = 8, gb_s = 225 }
pcie = { gb_s = 64 }
network = { gb_s = 12.5 }
"""
    boxes = catalog([text]).cluster("8xAcme")
    collective = Communication("all_gather", 1, tuple(range(8)))
    own = communication_time(collective, 512 * MIB, boxes).value
    twice = communication_time(collective, 512 * MIB, cluster("8xH100")).value
    assert own == pytest.approx(2 * twice, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "implementation", "message"),
    [
        ("all_reduse", "nccl", "did you mean 'all_reduce'?"),
        ("all_reduce", "ncll", "did you mean 'nccl'?"),
    ],
)
def test_an_unknown_collective_is_refused(kind, implementation, message):
    with pytest.raises(ParframeError) as caught:
        communication_time(Communication(kind, 1, (0, 1)), 1, cluster("8xH100"), implementation)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("framework", "implementation"),
    [("vLLM 0.11.0", "vllm"), ("TensorRT-LLM 0.17", "trtllm"), ("trtllm 1.0.0rc3", "trtllm"),
     ("SGLang", "vllm"), ("gpt-fast (PyTorch)", "nccl"), ("", "nccl")],
)  # fmt: skip
def test_frameworks_have_collectives_of_their_own(framework, implementation):
    assert implementation_of(framework) == implementation


def test_what_is_fitted_is_data_with_its_tables():
    found = communication_times.shipped()
    assert sum(found.sources.values()) > 1500
    assert (
        communication_times.read(json.loads(json.dumps(communication_times.write(found)))) == found
    )


@pytest.fixture(scope="module")
def rows():
    from benchmarks.calibration.collective_rows import read_rows

    return read_rows(MEASURED)


def of_all_reduce(pairs):
    """The absolute errors of all-reduces within a node, by device; launched without a graph, they
    take the host's time, and Vidur's medians are of three steps."""
    found = {}
    for row, ratio in pairs:
        counted = row.source != "vidur_network.csv" and not row.implementation.endswith("_eager")
        if row.kind == "all_reduce" and row.within and counted:
            found.setdefault(row.machine.device.key, []).append(abs(ratio - 1))
    return found


@here
def test_all_reduces_within_a_node_are_off_by_less_than_a_tenth(rows):
    from benchmarks.calibration.collective_fit import ratios

    off = of_all_reduce(ratios(rows, communication_times.shipped().constants))
    assert {"a100_sxm_80gb", "h100_sxm", "h200_sxm", "l40s", "v100_pcie"} <= set(off)
    assert {device for device, errors in off.items() if median(errors) > 0.105} == set()
    assert median([error for errors in off.values() for error in errors]) <= 0.08
    assert fmean([error for errors in off.values() for error in errors]) <= 0.12


@here
def test_the_numbers_that_ship_are_those_of_the_fit_and_hold_for_a_device_left_out(rows):
    from benchmarks.calibration.collective_fit import fit, ratios

    fitted = communication_times.read(communication_times.write(fit(rows)))
    assert fitted.constants == communication_times.shipped().constants
    without = fit([row for row in rows if row.machine.device.key != "h200_sxm"])
    own = [row for row in rows if row.machine.device.key == "h200_sxm"]
    assert median(of_all_reduce(ratios(own, without.constants))["h200_sxm"]) < 0.12


@here
def test_collectives_between_nodes_are_off_by_less_than_a_quarter(rows):
    from benchmarks.calibration.collective_fit import errors, ratios

    far = [row for row in rows if not row.within and row.fits and row.kind == "all_reduce"]
    found = errors(ratios(far, communication_times.shipped().constants))
    known = {error.machine for error in found if error.rows > 10 and error.median < 0.25}
    assert known == {"a100_80gb_ethernet", "h100_a3_mega", "v100_pcie"}
    assert all(error.median < 0.45 for error in found)


@here
def test_the_spread_holds_four_fifths_of_the_rows(rows):
    from benchmarks.calibration.collective_fit import predicted

    found = communication_times.shipped()
    for implementation in ("nccl", "vllm", "trtllm", "deepep"):
        own = [r for r in rows if r.implementation == implementation and r.within and r.fits]
        reach = 1.2816 * found.log_std.measured[implementation]
        ratios = [predicted(row, found.constants) / row.seconds for row in own]
        inside = fmean(2.718281828**-reach <= ratio <= 2.718281828**reach for ratio in ratios)
        assert 0.75 <= inside <= 0.85


def test_missing_tables_are_named(tmp_path):
    from benchmarks.calibration.collective_rows import read_rows

    with pytest.raises(ParframeError, match=r"aic_comm.csv: no such file; collectives"):
        read_rows(tmp_path)
