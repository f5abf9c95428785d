"""The catalog of hardware: every device, and one with the machines that it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.hardware import DTYPES, Device, Link, Machine
from parframe.report.formatting import counted
from parframe.report.screen import BLANK, heading, lines, table

_NONE = "-"


def device_facts(device: Device, machines: Iterable[Machine]) -> dict[str, Any]:
    """The figures of a device, its machines, and where all of it comes from."""
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


def machine_facts(machine: Machine) -> dict[str, Any]:
    """What joins the devices of a machine, and its nodes."""
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
    """A link's shape and speed; how many devices it joins, unless it joins nodes."""
    facts: dict[str, Any] = {
        "kind": link.kind,
        "shape": link.shape,
        "bytes_per_second_each_direction": link.bandwidth,
    }
    if link.shape != "network":
        facts |= {
            "devices": link.devices,
            "bytes_per_second_of_a_pair": link.between(2),
            "reduces": link.reduces,
            "peer": link.peer,
        }
    return facts


def draw_devices(facts: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """A row for every device, with its usual machine."""
    yield heading("Devices", f"{len(facts)} known, dense TFLOPS")
    columns = ("device", "GiB", "GB/s", "bf16", "fp8", "fp4", "W", "joined by", "each way")
    yield table(columns, map(_row, facts), right=("GiB", "GB/s", "bf16", "fp8", "fp4", "W"))


def draw_device(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One device: its figures, its machines, sources and notes."""
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
    yield lines(facts["sources"] or ["none is given"])
    yield from (lines([f"{key}: {text}"], "dim") for key, text in facts["notes"].items())


def _draw_machine(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield heading(facts["name"], f"{counted(facts['devices_per_node'], 'device')} in a node")
    rows = []
    for key, place in (("link", "directly"), ("pcie", "in a node"), ("network", "between nodes")):
        link = facts[key]
        if link is not None:
            rows.append((place, link["kind"], _speed(link), _shape(link)))
    yield table(("joined", "by", "each way", "how"), rows)
    yield from (lines([f"{key}: {text}"], "dim") for key, text in facts["notes"].items())


def _row(facts: Mapping[str, Any]) -> tuple[str, ...]:
    rates = facts["dense_tflops"]
    shown = [rates.get("bf16", rates.get("fp16")), rates.get("fp8"), rates.get("fp4")]
    link = _fastest(facts["machines"])
    return (
        facts["name"],
        f"{facts['memory_bytes'] / 2**30:g}",
        f"{facts['bandwidth_bytes_per_second'] / 1e9:.0f}",
        *(_NONE if rate is None else f"{rate:.0f}" for rate in shown),
        f"{facts['power_watts']:.0f}" if facts["power_watts"] else _NONE,
        f"{link['devices']} {link['kind']}" if link else _NONE,
        f"{link['bytes_per_second_each_direction'] / 1e9:g}" if link else "",
    )


def _fastest(machines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if not machines:
        return None
    link: Mapping[str, Any] = machines[0]["link"] or machines[0]["pcie"]
    return link


def _speed(link: Mapping[str, Any]) -> str:
    return f"{link['bytes_per_second_each_direction'] / 1e9:g} GB/s"


def _shape(link: Mapping[str, Any]) -> str:
    pair = link.get("bytes_per_second_of_a_pair", 0) / 1e9
    ways = {
        "switch": "a switch of {n}",
        "mesh": "a mesh of {n}: {pair:g} GB/s for a pair",
        "pairs": "pairs",
        "tree": "{n} over PCIe" + ("" if link.get("peer", True) else ", through the host"),
        "network": "for each device",
    }
    told = ways[link["shape"]].format(n=link.get("devices"), pair=pair)
    return f"{told}, which sums" if link.get("reduces") else told
