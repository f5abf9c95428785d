"""Hardware files: TOML with devices, machines and a cluster, read with checks."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parframe.errors import did_you_mean
from parframe.hardware.checked_table import CheckedTable, hardware_error, is_one_line, short_repr
from parframe.hardware.device import DTYPES, Device
from parframe.hardware.machine import Link, Machine, Shape
from parframe.hardware.measurements import OPERATORS, Measured, MeasuredCollective, Speeds

MAX_BYTES = 1 << 20
"""Longest file that is read."""

MAX_DOTS = 64
"""Most dots of a line outside texts: parsing takes time quadratic in the parts of a key."""

_TABLES = ("device", "machine", "cluster")
_DEVICE = (
    "name", "maker", "architecture", "part", "forms", "dense_tflops", "memory_gib",
    "usable_share", "bandwidth_gb_s", "power_w", "processors",
    "last_level_cache_mb", "sources", "notes", "measured",
)  # fmt: skip
_MACHINE = (
    "name", "device", "gpus", "link", "pcie", "network", "notes", "alone", "divided", "collective",
    "engine",
)  # fmt: skip
_SHAPES: tuple[Shape, ...] = ("switch", "mesh", "pairs")
_MEGA, _GIGA, _TERA, _MICRO = 1e6, 1e9, 1e12, 1e-6
_DEFAULT_LOG_STD = 1e-6
_QUOTED = re.compile(r""" "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | \#.* """, re.VERBOSE)


def parse(text: str, name: str) -> dict[str, dict[str, Any]]:
    """Parse the text of a hardware file into tables.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if it is not TOML, or has other tables than device, machine, cluster.
    """
    for line, content in enumerate(text.splitlines(), 1):
        if content.count(".") > MAX_DOTS and _QUOTED.sub("", content).count(".") > MAX_DOTS:
            what = f"line {line} has more than {MAX_DOTS} dots outside texts"
            raise hardware_error(name, what, "use keys with fewer parts")
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as fault:  # also a number of more digits than Python reads
        raise hardware_error(name, f"is not TOML ({fault})", "correct it there") from fault
    for key, table in found.items():
        if key not in _TABLES:
            what = f"has an unknown table {key!r}{did_you_mean(key, _TABLES)}"
            raise hardware_error(name, what, f"use only {', '.join(_TABLES)}")
        if not isinstance(table, dict):
            raise hardware_error(
                f"{name}: {key}", "is not a table", f"write it as [{key}.NAME] with keys"
            )
        for entry in table:
            if not is_one_line(entry):
                raise hardware_error(
                    f"{name}: {key}", f"has an illegal key {short_repr(entry)}", "use a short word"
                )
    return found


def read_text(path: Path) -> str:
    """Read the text of a hardware file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise hardware_error(
                str(path), f"has more than {MAX_BYTES >> 20} MiB", "use a shorter file"
            )
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "not UTF-8"
        raise hardware_error(str(path), f"cannot be read ({why})", "use a TOML file") from fault


def read_device(key: str, values: object, name: str) -> Device:
    """Read a device from its table in the file ``name``."""
    table = CheckedTable(f"{name}: device.{key}", values, _DEVICE)
    rates = CheckedTable(
        f"{table.where}.dense_tflops", table.values.get("dense_tflops", {}), DTYPES
    )
    if not rates.values:
        raise hardware_error(
            table.where, "has no 'dense_tflops'", "add { bf16 = ... } with dense operations"
        )
    display_name = table.text("name", key)
    lacks_power = "measured" in table.values and "power_w" not in table.values
    return Device(
        key=key,
        name=display_name,
        maker=table.text("maker", "unknown"),
        architecture=table.text("architecture", "unknown"),
        part=table.text("part", display_name).casefold(),
        forms=table.texts("forms"),
        rates={d: rates.number(d, most=1e6) * _TERA for d in DTYPES if d in rates.values},
        memory=round(table.number("memory_gib", most=1e5) * 2**30),
        usable_share=table.number("usable_share", 0.98, most=1.0),
        bandwidth=table.number("bandwidth_gb_s", most=1e6) * _GIGA,
        power=0.0 if lacks_power else table.number("power_w", most=1e5),
        processors=table.count("processors") if "processors" in table.values else None,
        last_level_cache=table.number("last_level_cache_mb", most=1e5) * _MEGA
        if "last_level_cache_mb" in table.values
        else None,
        sources=table.texts("sources"),
        notes=table.notes(),
        measured=_read_speeds(table),
    )


def read_machine(key: str, values: object, devices: Mapping[str, Device], name: str) -> Machine:
    """Read a machine from its table in the file ``name``; it may use ``devices``."""
    table = CheckedTable(f"{name}: machine.{key}", values, _MACHINE)
    device = _read_named_device(table, "device", devices)
    per_node = table.count("gpus")
    return Machine(
        key=key,
        name=table.text("name", key),
        device=device,
        per_node=per_node,
        link=_read_link(table) if "link" in table.values else None,
        pcie=_read_pcie(table, per_node),
        network=_read_network(table) if "network" in table.values else None,
        notes=table.notes(),
        alone=_read_named_device(table, "alone", devices) if "alone" in table.values else None,
        divided=table.count("divided") if "divided" in table.values else None,
        collectives=_read_collectives(table),
        engines=_read_engines(table),
    )


def _read_named_device(table: CheckedTable, key: str, devices: Mapping[str, Device]) -> Device:
    device = table.text(key)
    if device not in devices:
        what = f"is {device!r}, which is not the key of a device{did_you_mean(device, devices)}"
        raise hardware_error(
            f"{table.where}.{key}", what, "use a key that `parframe devices` lists"
        )
    return devices[device]


def _read_speeds(device: CheckedTable) -> Measured:
    """Read the measured speeds of a device, given in 10^9 per second, by operator and dtype."""
    operators = CheckedTable(
        f"{device.where}.measured", device.values.get("measured", {}), OPERATORS
    )
    found: dict[str, dict[str, Speeds]] = {}
    for operator, values in operators.values.items():
        dtypes = CheckedTable(f"{operators.where}.{operator}", values, DTYPES)
        for dtype in dtypes.values:
            table = _inner_table(dtypes, dtype, ("sizes", "giga_per_s", "log_std"))
            sizes, speeds = _read_pairs(table, "giga_per_s", _GIGA)
            log_std = table.number("log_std", _DEFAULT_LOG_STD, most=5.0)
            found.setdefault(operator, {})[dtype] = Speeds(sizes, speeds, log_std)
    missing = [name for name in OPERATORS if found and name not in found]
    if missing:
        raise hardware_error(operators.where, f"has no {missing[0]!r}", "measure the device again")
    return found


def _read_collectives(machine: CheckedTable) -> tuple[MeasuredCollective, ...]:
    listed = machine.values.get("collective", [])
    if not isinstance(listed, list):
        raise hardware_error(
            f"{machine.where}.collective", "is not a list", "write each as [[...collective]]"
        )
    found = []
    for number, values in enumerate(listed, 1):
        where = f"{machine.where}.collective {number}"
        table = CheckedTable(where, values, ("kind", "ranks", "bytes", "us", "log_std"))
        sizes, seconds = _read_pairs(table, "us", _MICRO, sizes="bytes")
        log_std = table.number("log_std", _DEFAULT_LOG_STD, most=5.0)
        found.append(
            MeasuredCollective(table.text("kind"), table.count("ranks"), sizes, seconds, log_std)
        )
    return tuple(found)


def _read_pairs(
    table: CheckedTable, key: str, unit: float, sizes: str = "sizes"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read sizes, and the values at these sizes."""
    at_sizes, values = table.numbers(sizes, growing=True), table.numbers(key)
    if len(at_sizes) != len(values):
        what = f"has {len(values)} numbers, and {sizes!r} has {len(at_sizes)}"
        raise hardware_error(f"{table.where}.{key}", what, "give one for each size")
    return at_sizes, tuple(value * unit for value in values)


def _read_engines(machine: CheckedTable) -> Mapping[str, Mapping[str, Any]]:
    """Read the tables of engines, whose keys `parframe.price.serving.engines` checks."""
    found = machine.values.get("engine", {})
    if not isinstance(found, Mapping) or not all(isinstance(v, Mapping) for v in found.values()):
        raise hardware_error(
            f"{machine.where}.engine", "is not a table of tables", "write [...engine.NAME]"
        )
    return found


def _read_link(machine: CheckedTable) -> Link:
    table = _inner_table(machine, "link", ("kind", "shape", "gpus", "gb_s", "reduces"))
    name = table.text("shape", "switch")
    shape = next((shape for shape in _SHAPES if shape == name), None)
    if shape is None:
        what = f"is {name!r}{did_you_mean(name, _SHAPES)}"
        raise hardware_error(f"{table.where}.shape", what, f"use one of {', '.join(_SHAPES)}")
    speed = table.number("gb_s", most=1e5) * _GIGA
    reduces = table.flag("reduces", False)
    return Link(table.text("kind"), shape, table.count("gpus"), speed, reduces=reduces)


def _read_pcie(machine: CheckedTable, per_node: int) -> Link:
    table = _inner_table(machine, "pcie", ("kind", "gb_s", "peer"))
    speed = table.number("gb_s", most=1e5) * _GIGA
    peer = table.flag("peer", True)
    return Link(table.text("kind", "PCIe"), "tree", per_node, speed, peer=peer)


def _read_network(machine: CheckedTable) -> Link:
    table = _inner_table(machine, "network", ("kind", "gb_s"))
    speed = table.number("gb_s", most=1e5) * _GIGA
    return Link(table.text("kind", "network"), "network", 1 << 30, speed)


def _inner_table(machine: CheckedTable, key: str, keys: Iterable[str]) -> CheckedTable:
    if key not in machine.values:
        raise hardware_error(
            machine.where, f"has no {key!r}", f"add a table with {', '.join(keys)}"
        )
    return CheckedTable(f"{machine.where}.{key}", machine.values[key], keys)
