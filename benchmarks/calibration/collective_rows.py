"""Measured collectives, from tables of several origins, as rows of one form."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import attrs

from parframe.errors import ParframeError
from parframe.hardware import Cluster, Link, Machine, shipped
from parframe.price.cost.collective_model import Group

TABLES = (
    "aic_comm.csv",
    "apex_comm.csv",
    "vidur_network.csv",
    "nccl_multinode.csv",
    "aic_deepep.csv",
)
"""The files of measured times that are read from a folder."""

IMPLEMENTATIONS: Mapping[str, str] = {
    "nccl": "nccl",
    "trtllm:TRTLLM": "trtllm",
    "vllm:vllm_graph": "vllm",
    "vllm:vllm_eager": "vllm_eager",
}
"""Implementations by their names in the tables."""

KINDS: Mapping[str, str] = {"alltoall": "all_to_all", "send_recv": "send"}
"""Kinds of collectives by their names in the tables, where these differ."""

ADAPTERS: Mapping[str, float] = {"v100_pcie": 1.25e9, "a100_80gb_ethernet": 12.5e9}
"""Bytes per second of a node's network in each direction, where a table's machine differs from the
catalog's; estimated from the speed of its long messages."""

SLOW = "a100_80gb_ethernet"
"""Machine of `vidur_network.csv` called a100_dgx, between nodes: long messages reach about 100 Gb/s
for all eight devices of a node."""

INTERCONNECTS: Mapping[str, str] = {"a3-mega": "H100 A3 Mega", "PCIe Gen5 x16": "RTX PRO 6000"}
"""The machines of `nccl_multinode.csv`, by a part of what it calls their interconnect."""

PUBLISHED = "published_collectives.toml"

UNEVEN = ("a100_pairwise_nvlink",)
"""Machines of that table whose network is unknown: their long messages between nodes reach 5.4 GB/s
at 3 MB and 2.0 GB/s at 7 MB."""

CLEAR = 1e6
"""In `vidur_network.csv`, medians within a node are fitted from so many bytes: shorter ones, of
three steps under a profiler, scatter by five times from one size to the next."""


@attrs.frozen(eq=False)
class Row:
    """Measured collective.

    Parameters
    ----------
    source
        The file it comes from.
    machine
        Machine that it was measured on.
    kind, implementation
        Kind of the collective, and the library that ran it.
    group
        Ranks and links that it spanned.
    size
        Bytes of the whole message.
    seconds
        Duration.
    fits
        True if the row is used to fit.
    """

    source: str
    machine: Machine
    kind: str
    implementation: str
    group: Group
    size: float
    seconds: float
    fits: bool = True

    @property
    def network(self) -> str:
        """Network between nodes: InfiniBand of any machine, or the machine's own."""
        outer = self.group.span.outer
        return "InfiniBand" if outer and outer.kind == "InfiniBand" else self.machine.key

    @property
    def within(self) -> bool:
        """True if all ranks are in one node."""
        return self.group.span.outer is None


def read_rows(folder: Path) -> list[Row]:
    """Read all measured collectives of a folder of tables.

    Parameters
    ----------
    folder
        Where the files of `TABLES` are.

    Raises
    ------
    ParframeError
        Of kind `input`, if a file is not there.
    """
    rows: list[Row] = []
    for name, reader in zip(TABLES, (_aic, _apex, _vidur, _nodes, _experts), strict=True):
        path = folder / name
        if not path.is_file():
            what = "no such file; collectives are fitted to it"
            raise ParframeError("input", str(path), what, "give the folder of measurements")
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(reader(name, csv.DictReader(file)))
    return rows + list(published())


def published() -> Iterator[Row]:
    """Yield the collectives between nodes that ship with their sources and are in no table."""
    text = (files("parframe.price") / "data" / PUBLISHED).read_text(encoding="utf-8")
    for cluster in tomllib.loads(text)["cluster"]:
        machine = shipped().machine(cluster["machine"])
        speed = cluster["gb_s"] * 1e9
        network = Link("InfiniBand", "network", 1 << 30, speed)
        group = _group(
            attrs.evolve(machine, network=network), cluster["ranks"], cluster["per_node"]
        )
        for size, time in cluster["rows"]:
            seconds = time * 1e-6
            yield Row(cluster["source"], machine, cluster["kind"], "nccl", group, size, seconds)


Lines = Iterable[dict[str, str]]


def _aic(source: str, lines: Lines) -> Iterator[Row]:
    for line in lines:
        machine = shipped().machine(line["gpu"])
        group = _group(machine, int(line["n_gpus"]))
        implementation = IMPLEMENTATIONS[line["impl"]]
        seconds = float(line["value"]) * 1e-6
        kind = KINDS.get(line["op"], line["op"])
        size = float(line["message_bytes"])
        yield Row(source, machine, kind, implementation, group, size, seconds)


def _apex(source: str, lines: Lines) -> Iterator[Row]:
    for line in lines:
        machine = _with_adapter(shipped().machine(line["gpu"]), int(line["gpus_per_node"]))
        nodes, each = int(line["nodes"]), int(line["gpus_per_node"])
        size, seconds = float(line["message_kb"]) * 1024, float(line["time_us"]) * 1e-6
        if size > 0:
            group = _group(machine, nodes * each, each)
            yield Row(source, machine, line["op"], "nccl", group, size, seconds)


def _vidur(source: str, lines: Lines) -> Iterator[Row]:
    for line in lines:
        each = int(line["gpus_per_node"])
        name = line["topology"] if line["nodes"] == "1" or "dgx" not in line["topology"] else SLOW
        machine = _with_adapter(shipped().machine(name), each)
        group = _group(machine, int(line["n_gpus"]), each)
        size, seconds = float(line["message_bytes"]), float(line["median_us"]) * 1e-6
        kind = KINDS.get(line["op"], line["op"])
        across = line["nodes"] != "1"
        clear = line["topology"] not in UNEVEN if across else size >= CLEAR
        yield Row(source, machine, kind, "nccl", group, size, seconds, fits=clear)


def _nodes(source: str, lines: Lines) -> Iterator[Row]:
    """Yield rows of NCCL's default settings, from a time or a bus bandwidth."""
    for line in lines:
        machine = next((m for part, m in INTERCONNECTS.items() if part in line["interconnect"]), "")
        usual = "custom" not in line["framework"] and "CHANNELS" not in line["framework"]
        size = line["message_bytes"]
        if not (machine and usual and size.isdigit() and line["op"] == "all_reduce"):
            continue
        found, ranks = shipped().machine(machine), int(line["n_gpus"])
        group = _group(found, ranks, int(line["gpus_per_node"]))
        wire = 2 * (ranks - 1) / ranks * float(size)
        micros = line["time_us"]
        seconds = float(micros) * 1e-6 if micros else wire / (float(line["busbw_GB_s"]) * 1e9)
        yield Row(source, found, "all_reduce", "nccl", group, float(size), seconds)


def _experts(source: str, lines: Lines) -> Iterator[Row]:
    """Yield dispatches in fp8 and combines in bf16; normal kernels send a token once to a rank."""
    for line in lines:
        machine = shipped().machine(line["gpu"])
        ranks = 8 * int(line["nodes"])
        chosen = int(line["topk"])
        low = line["kind"] == "ll"
        copies = chosen if low else ranks * (1 - (1 - 1 / ranks) ** chosen)
        width = 2 if line["metric"].startswith("combine") else 1
        size = int(line["tokens_per_rank"]) * int(line["hidden"]) * width * copies
        name = "deepep_low_latency" if low else "deepep"
        seconds = float(line["value"]) * 1e-6
        yield Row(source, machine, "all_to_all", name, _group(machine, ranks), size, seconds)


def _group(machine: Machine, ranks: int, each: int | None = None) -> Group:
    """Return a group of ranks in as few nodes as possible, or with a number of ranks per node."""
    width = machine.per_node
    each = each or min(ranks, width)
    chosen = [rank // each * width + rank % each for rank in range(ranks)]
    span = Cluster(machine, max(chosen) + 1).span(chosen)
    return Group(span, machine.device, machine.key)


def _with_adapter(machine: Machine, each: int) -> Machine:
    """Return the machine with the network of a table's nodes, shared by the ranks of a node."""
    whole = ADAPTERS.get(machine.key)
    if whole is None:
        return machine
    network = Link("Ethernet", "network", 1 << 30, whole / each)
    return attrs.evolve(machine, network=network)
