"""Known devices as a table, and one device with its machines, as facts for JSON and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.hardware import DTYPES, Device, Link, Machine
from parframe.report.formatting import counted
from parframe.report.screen import BLANK, heading, lines, table

_EMPTY = "-"


def device_facts(device: Device, machines: Iterable[Machine]) -> dict[str, Any]:
    """Return a device and its machines as facts for JSON."""
    return {
        "key": device.key,
        "name": device.name,
        "maker": device.maker,
        "architecture": device.architecture,
        "dense_tflops": {dtype: rate / 1e12 for dtype, rate in device.rates.items()},
        "memory_bytes": device.memory,
        "usable_bytes": device.usable,
        "bandwidth_bytes_per_second": device.bandwidth,
        "power_watts": device.power,
        "machines": [machine_facts(m) for m in machines if m.device == device],
        "sources": list(device.sources),
        "notes": dict(device.notes),
    }


def catalog_facts(
    devices: Iterable[Device],
    machines: Iterable[Machine],
    claimed: Sequence[str],
    warnings: Iterable[str],
) -> dict[str, Any]:
    """Return all devices as facts for JSON, with names that plugins claim and warnings."""
    known = tuple(machines)
    return {
        "devices": [device_facts(device, known) for device in devices],
        "claimed": list(claimed),
        "warnings": list(warnings),
    }


def machine_facts(machine: Machine) -> dict[str, Any]:
    """Return the links of a machine as facts for JSON."""
    return {
        "key": machine.key,
        "name": machine.name,
        "devices_per_node": machine.per_node,
        "link": link_facts(machine.link) if machine.link else None,
        "pcie": link_facts(machine.pcie),
        "network": link_facts(machine.network) if machine.network else None,
        "notes": dict(machine.notes),
    }


def link_facts(link: Link) -> dict[str, Any]:
    """Return a link as facts for JSON; a network has no number of devices."""
    facts: dict[str, Any] = {
        "kind": link.kind,
        "shape": link.shape,
        "bytes_per_second_each_direction": link.bandwidth,
    }
    if link.shape != "network":
        facts |= {
            "devices": link.devices,
            "bytes_per_second_per_pair": link.between(2),
            "in_network_reduction": link.reduces,
            "peer_access": link.peer,
        }
    return facts


def draw_devices(facts: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Draw a row for every device, with its usual machine."""
    yield heading("Devices", f"{len(facts)} known; bf16, fp8 and fp4 in dense TFLOPS")
    columns = ("device", "GiB", "GB/s", "bf16", "fp8", "fp4", "W", "link", "link GB/s")
    numbers = ("GiB", "GB/s", "bf16", "fp8", "fp4", "W", "link GB/s")
    yield table(columns, map(_row, facts), right=numbers)


def draw_device(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Draw one device: its figures, machines, sources and notes."""
    yield heading(facts["name"], f"{facts['maker']}, {facts['architecture']}")
    rates = facts["dense_tflops"]
    rows = [(f"{dtype}, dense", f"{rates[dtype]:g} TFLOPS") for dtype in DTYPES if dtype in rates]
    share = facts["usable_bytes"] / facts["memory_bytes"]
    rows += [
        ("memory", f"{facts['memory_bytes'] / 2**30:g} GiB, {share:.1%} usable"),
        ("memory bandwidth", f"{facts['bandwidth_bytes_per_second'] / 1e9:,g} GB/s"),
    ]
    rows += [("power", f"{facts['power_watts']:g} W")] if facts["power_watts"] else []
    yield table(("figure", "value"), rows)
    for machine in facts["machines"]:
        yield BLANK
        yield from _draw_machine(machine)
    yield BLANK
    yield heading("Sources")
    yield lines(facts["sources"] or ["no source given"])
    yield from (lines([f"{key}: {text}"], "dim") for key, text in facts["notes"].items())


def _draw_machine(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield heading(facts["name"], f"{counted(facts['devices_per_node'], 'device')} per node")
    rows = []
    for key, place in (("link", "GPU to GPU"), ("pcie", "PCIe"), ("network", "between nodes")):
        link = facts[key]
        if link is not None:
            speed = f"{link['bytes_per_second_each_direction'] / 1e9:g} GB/s"
            rows.append((place, link["kind"], speed, _shape(link)))
    yield table(("connection", "kind", "each direction", "topology"), rows)
    yield from (lines([f"{key}: {text}"], "dim") for key, text in facts["notes"].items())


def _row(facts: Mapping[str, Any]) -> tuple[str, ...]:
    rates = facts["dense_tflops"]
    shown = [rates.get("bf16", rates.get("fp16")), rates.get("fp8"), rates.get("fp4")]
    machine = next(iter(facts["machines"]), None)
    link = (machine["link"] or machine["pcie"]) if machine else None
    return (
        facts["name"],
        f"{facts['memory_bytes'] / 2**30:g}",
        f"{facts['bandwidth_bytes_per_second'] / 1e9:.0f}",
        *(_EMPTY if rate is None else f"{rate:.0f}" for rate in shown),
        f"{facts['power_watts']:.0f}" if facts["power_watts"] else _EMPTY,
        f"{link['devices']} {link['kind']}" if link else _EMPTY,
        f"{link['bytes_per_second_each_direction'] / 1e9:g}" if link else "",
    )


def _shape(link: Mapping[str, Any]) -> str:
    pair = link.get("bytes_per_second_per_pair", 0) / 1e9
    shapes = {
        "switch": "switch of {n}",
        "mesh": "full mesh of {n}, {pair:g} GB/s per pair",
        "pairs": "pairs",
        "tree": "{n} over PCIe" + ("" if link.get("peer_access", True) else ", through CPU memory"),
        "network": "per device",
    }
    text = shapes[link["shape"]].format(n=link.get("devices"), pair=pair)
    return f"{text}, in-network reduction" if link.get("in_network_reduction") else text
