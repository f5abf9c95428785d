import csv
import subprocess
import sys
from pathlib import Path

import pytest
from test_hooks import Site, site  # noqa: F401 - a fixture

from parframe import hooks
from parframe.errors import ParframeError
from parframe.hardware import DTYPES, Cluster, catalog, cluster, shipped
from parframe.price.serving.hardware_lookup import find_cluster, load_catalog

MEASURED = Path(__file__).parents[3] / "shared" / "measurements"

ACME = """
[device.acme_x1]
name = "Acme X1"
dense_tflops = { bf16 = 400, fp8 = 800 }
memory_gib = 96
bandwidth_gb_s = 3200
power_w = 500

[machine.acme_box]
device = "acme_x1"
gpus = 4
link = { kind = "AcmeLink", shape = "mesh", gpus = 4, gb_s = 300 }
pcie = { kind = "PCIe 5", gb_s = 64 }
network = { kind = "Ethernet", gb_s = 12.5 }
"""

HOOK = """
from parframe import hookimpl

@hookimpl
def parframe_hardware():
    return [{}]
"""

CLUSTER = '[cluster]\nmachine = "acme box"\ndevices = 6\n'


@pytest.mark.parametrize(
    ("name", "device", "machine"),
    [
        ("H100-SXM-80GB", "h100_sxm", "hgx_h100"),
        ("H100-SXM-80GB (79.18 GiB)", "h100_sxm", "hgx_h100"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm", "hgx_h100"),
        ("h100 pcie", "h100_pcie", "h100_pcie"),
        ("H100 A3 Mega", "h100_sxm", "h100_a3_mega"),
        ("DGX H100", "h100_sxm", "hgx_h100"),
        ("A100-SXM4-80GB (DGX)", "a100_sxm_80gb", "dgx_a100_80gb"),
        ("a100_pairwise_nvlink", "a100_sxm_80gb", "a100_pairwise_80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100_sxm_40gb", "dgx_a100_40gb"),
        ("A100-PCIE-80GB", "a100_pcie_80gb", "a100_pcie"),
        (
            "A100 (memory size not stated in repo; fits 40GB/1555GB/s behaviour)",
            "a100_sxm_40gb",
            "dgx_a100_40gb",
        ),
        ("H200-SXM-141GB", "h200_sxm", "hgx_h200"),
        ("GB200 (per GPU, NVL72)", "gb200", "gb200_nvl72"),
        ("MI300X-OAM", "mi300x", "mi300x"),
        ("MI250X (2 GCDs)", "mi250x", "mi250x"),
        ("L40S-48GB", "l40s", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090", "rtx_4090"),
        ("RTX PRO 6000 Blackwell Server", "rtx_pro_6000", "rtx_pro_6000"),
        ("RTX 6000 Ada", "rtx_6000_ada", "rtx_6000_ada"),
        ("H800 (NVLink ~160 GB/s max) + CX7 IB 400Gb/s", "h800", "hgx_h800"),
        ("V100-PCIE-16GB", "v100_pcie", "v100_pcie"),
    ],
)
def test_a_name_is_understood_in_any_usual_spelling(name, device, machine):
    found = shipped().machine(name)
    assert (found.device.key, found.key) == (device, machine)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H1000", "no such GPU is known (did you mean 'H100 SXM'?)"),
        ("H101", "no such GPU is known (did you mean 'H100 SXM'?)"),
        ("A10M", "no such GPU is known (did you mean 'A10'?)"),
        ("RTX 4090 Laptop", "the word 'laptop' does not match RTX 4090"),
        ("A100 60GB", "use one of A100 SXM 80GB, A100 SXM 40GB, A100 PCIe 80GB"),
        ("H200 PCIe", "no such H200 is known"),
        ("", "`parframe devices` lists all"),
    ],
)
def test_a_name_that_may_mean_another_gpu_is_refused(name, expected):
    with pytest.raises(ParframeError) as caught:
        shipped().machine(name)
    assert caught.value.kind == "hardware"
    assert expected in str(caught.value)


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the table of published figures is not here")
def test_the_catalog_has_every_published_figure():
    with (MEASURED / "hardware.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 20
    for row in rows:
        machine = shipped().machine(row["gpu"].partition(" (")[0])
        device = machine.device
        dies = 2 if device.key == "mi250x" else 1
        for dtype, column in (("fp16", "bf16"), ("fp8", "fp8"), ("fp4", "fp4"), ("int8", "int8")):
            unit = "tops" if column == "int8" else "tflops"
            published = row[f"{column}_dense_{unit}"]
            rate = device.rate(dtype)
            assert (rate or 0) * dies == pytest.approx(float(published or 0) * 1e12), device.name
        assert device.memory * dies == pytest.approx(
            float(row["mem_gb"]) * 2**30 if device.key != "gh200_144gb" else 141 * 2**30
        )
        assert device.bandwidth * dies == pytest.approx(float(row["mem_bw_gb_s"]) * 1e9, rel=1e-3)
        if machine.link is not None:
            assert machine.link.bandwidth == float(row["scaleup_gb_s_per_direction"]) * 1e9


def test_every_device_has_a_machine_and_a_source_and_legal_figures():
    found = shipped()
    homes = {machine.device.key for machine in found.machines.values()}
    for key, device in found.devices.items():
        assert key in homes
        assert device.sources
        assert set(device.rates) <= set(DTYPES)
        assert 0.9 < device.usable_share < 1


def test_no_shipped_figure_gives_a_sparsity_warning():
    for device in shipped().devices.values():
        fast = device.rates.get("fp8", 0.0)
        assert fast <= 2.05 * device.rates["fp16"], device.name


def test_a_group_of_ranks_is_as_fast_as_the_links_that_it_spans():
    boxes = cluster("64xH100")
    assert boxes.nodes == 8
    assert boxes.span([3]).reach == "alone"
    assert boxes.span([3]).slowest is None
    within = boxes.span(range(8, 16))
    assert (within.reach, within.inner.kind) == ("link", "NVLink 4")
    across = boxes.span(range(16))
    assert (across.reach, across.domains, across.ranks_per_domain) == ("network", 2, 8)
    assert across.slowest.bandwidth == 50e9
    strided = boxes.span(range(0, 64, 8))
    assert (strided.domains, strided.ranks_per_domain, strided.inner) == (8, 1, None)


def test_a_direct_link_may_connect_pairs_only_or_reach_beyond_a_node():
    pairs = cluster("8xH100 PCIe bridged")
    assert pairs.span([0, 1]).reach == "link"
    assert pairs.span([1, 2]).reach == "pcie"
    assert pairs.span(range(4)).inner.kind == "PCIe 5"
    racks = cluster("144xGB200")
    assert racks.nodes == 36
    assert racks.span(range(72)).reach == "link"
    assert racks.span(range(144)).domains == 2


def test_a_pair_in_a_mesh_has_one_wire():
    span = cluster("8xMI300X").span([0, 5])
    assert span.inner.between(2) == pytest.approx(448e9 / 7)
    assert span.inner.between(8) == 448e9


@pytest.mark.parametrize("text", ["H100", "0xH100", "axH100", "64x", "9999999xH100"])
def test_a_text_without_a_number_of_devices_is_refused(text):
    with pytest.raises(ParframeError):
        cluster(text)


def test_a_rank_outside_the_cluster_is_refused():
    with pytest.raises(ParframeError, match="the cluster has 8 devices"):
        cluster("8xH100").span([0, 8])


def test_a_file_may_have_processors_and_a_cache():
    text = ACME.replace("power_w = 500", "power_w = 500\nprocessors = 96\nlast_level_cache_mb = 48")
    device = catalog([text]).device("acme x1")
    assert (device.processors, device.last_level_cache) == (96, 48e6)
    plain = catalog([ACME]).device("acme x1")
    assert (plain.processors, plain.last_level_cache) == (None, None)


def test_a_file_adds_devices_machines_and_a_cluster(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(ACME + CLUSTER)
    lab = cluster(str(path))
    assert (lab.machine.device.name, lab.devices, lab.nodes) == ("Acme X1", 6, 2)
    assert cluster("8xacme x1", [path]) == Cluster(lab.machine, 8)
    assert catalog([path]).machine("H100").key == "hgx_h100"


def test_a_file_replaces_entries_that_ship():
    text = '[machine.hgx_h100]\ndevice = "h100_sxm"\ngpus = 4\npcie = { gb_s = 64 }\n'
    found = catalog([text + "network = { gb_s = 12.5 }\n"])
    assert found.machine("H100").per_node == 4
    assert shipped().machine("H100").per_node == 8


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("96", "1e-300"), "device.acme_x1.memory_gib: is 1e-300"),
        (("gpus = 4\n", "gpus = 0x" + "f" * 9000 + "\n"), "a number of too many digits"),
        (("gpus = 4\n", "gpus = " + "9" * 5000 + "\n"), "is not TOML"),
        (("memory_gib", "a." * 1000 + "b"), "dots outside texts"),
        (("Acme X1", "\\u001b[31m"), "device.acme_x1.name: is '\\x1b[31m'"),
        (("[device", "[devise"), "has an unknown table 'devise' (did you mean 'device'?)"),
        (("memory_gib", "memory"), "has an unknown key 'memory' (did you mean 'memory_gib'?)"),
        (("bf16", "bf15"), "has an unknown key 'bf15' (did you mean 'bf16'?)"),
        (("3200", "-3200"), "device.acme_x1.bandwidth_gb_s: is -3200"),
        (("power_w = 500", ""), "has no 'power_w'"),
        (('device = "acme_x1"', 'device = "acme_x2"'), "did you mean 'acme_x1'?"),
        (('"mesh"', '"mess"'), "machine.acme_box.link.shape: is 'mess' (did you mean 'mesh'?)"),
        (("gpus = 4", "gpus = 1.5"), "gpus: is 1.5; give a whole number"),
        (("[machine.acme_box]", "[machine.acme_box"), "is not TOML"),
    ],
)
def test_an_illegal_file_is_refused_with_the_place(wrong, expected):
    with pytest.raises(ParframeError) as caught:
        catalog([ACME.replace(*wrong, 1)])
    assert caught.value.kind == "hardware"
    assert expected in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ParframeError, match="cannot be read"):
        catalog([tmp_path / "none.toml"])
    (tmp_path / "a.toml").write_text(ACME)
    with pytest.raises(ParframeError, match=r"has no \[cluster\]"):
        cluster(str(tmp_path / "a.toml"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("Acme X1", "My H100"), None),
        (("bf16 = 400, fp8 = 800", "bf16 = 400, fp8 = 1600"), "fp8 is 4.0 times that of bf16"),
        (("bf16 = 400", "bf16 = 1979"), None),
    ],
)
def test_figures_with_sparsity_give_a_warning(change, expected):
    warnings = catalog([ACME.replace(*change)]).warnings
    assert bool(warnings) == bool(expected)
    assert all(expected in warning for warning in warnings)


def test_twice_the_known_figure_of_a_gpu_gives_a_warning():
    text = ACME.replace("Acme X1", "My H100").replace("bf16 = 400, fp8 = 800", "bf16 = 1979")
    [warning] = catalog([text]).warnings
    assert "1979 TFLOPS of bf16 is twice the dense 989 of H100 SXM" in warning


def test_a_plugin_that_adds_hardware_is_imported_when_it_is_named(site: Site):  # noqa: F811
    source = HOOK.format(f'"""{ACME}"""')
    module = site.install("acme", "acme-x1", source, "hardware")
    assert hooks.claimed_hardware() == ["acme-x1"]
    assert find_cluster("8xH100").machine.key == "hgx_h100"
    assert module not in sys.modules
    assert find_cluster("8xAcme X1").machine.key == "acme_box"
    assert module in sys.modules


def test_a_plugin_that_offers_no_hardware_is_named(site: Site):  # noqa: F811
    site.install("acme", "acme", HOOK.format(3), "hardware")
    with pytest.raises(ParframeError, match="offers 3 as hardware"):
        load_catalog("acme")


def test_devices_are_listed_and_shown(call, tmp_path):
    expected = call("devices")
    assert expected.code == 0
    assert "H100 SXM" in expected.out
    shown = call("devices", "MI300X")
    assert "64 GB/s per pair" in shown.out
    facts = call("devices", "h100_sxm", "--json").json
    assert facts["dense_tflops"]["bf16"] == 989
    assert [machine["key"] for machine in facts["machines"]] == ["hgx_h100", "h100_a3_mega"]
    refused = call("devices", "H1000")
    assert refused.code == 15
    assert "did you mean 'H100 SXM'?" in refused.err


def test_devices_of_a_file_are_listed_with_warnings(call, tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(ACME.replace("fp8 = 800", "fp8 = 1600"))
    expected = call("devices", "acme x1", "--hardware", path)
    assert "full mesh of 4, 100 GB/s per pair" in expected.out
    assert "warning: Acme X1: 1600 TFLOPS of fp8" in expected.err


def test_hardware_needs_no_torch():
    code = """
import sys
import parframe.price.serving.hardware_lookup
parframe.price.serving.hardware_lookup.find_cluster("64xH100").span(range(64))
print(sorted({"torch", "transformers", "sympy", "networkx", "numpy"} & set(sys.modules)))
"""
    expected = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert expected.stdout.splitlines()[-1] == "[]"
