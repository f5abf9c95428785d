"""A file of hardware as devices and machines, refused where it says something illegal."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parframe.errors import did_you_mean
from parframe.hardware.checked_table import Table, one_line, shown, wrong
from parframe.hardware.device import DTYPES, Device
from parframe.hardware.machine import Link, Machine, Shape
from parframe.hardware.measurements import OPERATORS, Exchanged, Measured, Speeds

MAX_BYTES = 1 << 20
"""A longer file is not read."""

MAX_DOTS = 64
"""A line with more dots outside texts is not read: a key's parts take as long as their square."""

_TABLES = ("device", "machine", "cluster")
_DEVICE = (
    "name", "maker", "architecture", "part", "forms", "dense_tflops", "memory_gib",
    "usable_share", "bandwidth_gb_s", "power_w", "processors",
    "last_level_cache_mb", "sources", "notes", "measured",
)  # fmt: skip
_MACHINE = (
    "name", "device", "gpus", "link", "pcie", "network", "notes", "alone", "divided", "exchange",
    "engine",
)  # fmt: skip
_SHAPES: tuple[Shape, ...] = ("switch", "mesh", "pairs")
_MEGA, _GIGA, _TERA, _MICRO = 1e6, 1e9, 1e12, 1e-6
_SURE = 1e-6
_QUOTED = re.compile(r""" "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | \#.* """, re.VERBOSE)


def parse(text: str, name: str) -> dict[str, dict[str, Any]]:
    """Read the text of a file of hardware, without its meaning.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if it is not TOML, or has other tables than device, machine, cluster.
    """
    for line, content in enumerate(text.splitlines(), 1):
        if content.count(".") > MAX_DOTS and _QUOTED.sub("", content).count(".") > MAX_DOTS:
            what = f"line {line} has more than {MAX_DOTS} dots outside texts"
            raise wrong(name, what, "give keys of a few parts")
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as fault:  # also a number of more digits than Python reads
        raise wrong(name, f"is not TOML ({fault})", "hint it there") from fault
    for key, table in found.items():
        if key not in _TABLES:
            what = f"has no table {key!r}{did_you_mean(key, _TABLES)}"
            raise wrong(name, what, f"give {', '.join(_TABLES)}")
        if not isinstance(table, dict):
            raise wrong(f"{name}: {key}", "is not a table", f"write it as [{key}.NAME] with keys")
        for one in table:
            if not one_line(one):
                raise wrong(f"{name}: {key}", f"has the key {shown(one)}", "give a short word")
    return found


def read_text(path: Path) -> str:
    """The text of a file of hardware."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise wrong(str(path), f"has more than {MAX_BYTES >> 20} MiB", "give a shorter file")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "not UTF-8"
        raise wrong(str(path), f"cannot be read ({why})", "give a file of TOML") from fault


def device_of(key: str, values: object, name: str) -> Device:
    """Make a device of its table."""
    table = Table(f"{name}: device.{key}", values, _DEVICE)
    rates = Table(f"{table.where}.dense_tflops", table.values.get("dense_tflops", {}), DTYPES)
    if not rates.values:
        raise wrong(table.where, "has no 'dense_tflops'", "give { bf16 = ... } of dense operations")
    full = table.text("name", key)
    lacks_power = "measured" in table.values and "power_w" not in table.values
    return Device(
        key=key,
        name=full,
        maker=table.text("maker", "unknown"),
        architecture=table.text("architecture", "unknown"),
        part=table.text("part", full).casefold(),
        forms=table.texts("forms"),
        rates={d: rates.number(d, most=1e6) * _TERA for d in DTYPES if d in rates.values},
        memory=round(table.number("memory_gib", most=1e5) * 2**30),
        usable_share=table.number("usable_share", 0.98, most=1.0),
        bandwidth=table.number("bandwidth_gb_s", most=1e6) * _GIGA,
        power=0.0 if lacks_power else table.number("power_w", most=1e5),
        processors=table.count("processors") if "processors" in table.values else None,
        last_level_cache=_last_level_cache(table),
        sources=table.texts("sources"),
        notes=table.notes(),
        measured=_measured(table),
    )


def _last_level_cache(table: Table) -> float | None:
    """Return the bytes of the last cache before the memory, or None if the table has no size."""
    if "last_level_cache_mb" not in table.values:
        return None
    return table.number("last_level_cache_mb", most=1e5) * _MEGA


def machine_of(key: str, values: object, devices: Mapping[str, Device], name: str) -> Machine:
    """Make a machine of its table; ``devices`` are those that it may name."""
    table = Table(f"{name}: machine.{key}", values, _MACHINE)
    device = _named(table, "device", devices)
    per_node = table.count("gpus")
    return Machine(
        key=key,
        name=table.text("name", key),
        device=device,
        per_node=per_node,
        link=_direct(table) if "link" in table.values else None,
        pcie=_pcie(table, per_node),
        network=_network(table) if "network" in table.values else None,
        notes=table.notes(),
        alone=_named(table, "alone", devices) if "alone" in table.values else None,
        divided=table.count("divided") if "divided" in table.values else None,
        exchanges=_exchanges(table),
        engines=_engines(table),
    )


def _named(table: Table, key: str, devices: Mapping[str, Device]) -> Device:
    device = table.text(key)
    if device not in devices:
        what = f"is {device!r}, which is no device's key{did_you_mean(device, devices)}"
        raise wrong(f"{table.where}.{key}", what, "give a key that `parframe devices` lists")
    return devices[device]


def _measured(device: Table) -> Measured:
    """What was measured of a device, by operator and dtype; in 10^9 a second."""
    operators = Table(f"{device.where}.measured", device.values.get("measured", {}), OPERATORS)
    found: dict[str, dict[str, Speeds]] = {}
    for operator, values in operators.values.items():
        dtypes = Table(f"{operators.where}.{operator}", values, DTYPES)
        for dtype in dtypes.values:
            table = _inner(dtypes, dtype, ("sizes", "giga_per_s", "spread"))
            sizes, speeds = _paired(table, "giga_per_s", _GIGA)
            spread = table.number("spread", _SURE, most=5.0)
            found.setdefault(operator, {})[dtype] = Speeds(sizes, speeds, spread)
    lacking = [name for name in OPERATORS if found and name not in found]
    if lacking:
        raise wrong(operators.where, f"has no {lacking[0]!r}", "measure the device again")
    return found


def _exchanges(machine: Table) -> tuple[Exchanged, ...]:
    listed = machine.values.get("exchange", [])
    if not isinstance(listed, list):
        raise wrong(f"{machine.where}.exchange", "is no list", "write each as [[...exchange]]")
    found = []
    for number, values in enumerate(listed, 1):
        where = f"{machine.where}.exchange {number}"
        table = Table(where, values, ("kind", "ranks", "bytes", "us", "spread"))
        sizes, seconds = _paired(table, "us", _MICRO, sizes="bytes")
        spread = table.number("spread", _SURE, most=5.0)
        found.append(Exchanged(table.text("kind"), table.count("ranks"), sizes, seconds, spread))
    return tuple(found)


def _paired(
    table: Table, key: str, unit: float, sizes: str = "sizes"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sizes, and the values at them."""
    given, values = table.numbers(sizes, growing=True), table.numbers(key)
    if len(given) != len(values):
        what = f"has {len(values)} numbers, and {sizes!r} has {len(given)}"
        raise wrong(f"{table.where}.{key}", what, "give one for each")
    return given, tuple(value * unit for value in values)


def _engines(machine: Table) -> Mapping[str, Mapping[str, Any]]:
    """Tables of engines; `parframe.price.serving.engines` knows their keys."""
    found = machine.values.get("engine", {})
    if not isinstance(found, Mapping) or not all(isinstance(v, Mapping) for v in found.values()):
        raise wrong(f"{machine.where}.engine", "is not a table of tables", "write [...engine.NAME]")
    return found


def _direct(machine: Table) -> Link:
    table = _inner(machine, "link", ("kind", "shape", "gpus", "gb_s", "reduces"))
    shape = table.text("shape", "switch")
    for known in _SHAPES:
        if shape == known:
            return Link(
                table.text("kind"),
                known,
                table.count("gpus"),
                table.number("gb_s", most=1e5) * _GIGA,
                reduces=table.flag("reduces", False),
            )
    what = f"is {shape!r}{did_you_mean(shape, _SHAPES)}"
    raise wrong(f"{table.where}.shape", what, f"give one of {', '.join(_SHAPES)}")


def _pcie(machine: Table, per_node: int) -> Link:
    table = _inner(machine, "pcie", ("kind", "gb_s", "peer"))
    speed = table.number("gb_s", most=1e5) * _GIGA
    peer = table.flag("peer", True)
    return Link(table.text("kind", "PCIe"), "tree", per_node, speed, peer=peer)


def _network(machine: Table) -> Link:
    table = _inner(machine, "network", ("kind", "gb_s"))
    speed = table.number("gb_s", most=1e5) * _GIGA
    return Link(table.text("kind", "network"), "network", 1 << 30, speed)


def _inner(machine: Table, key: str, keys: Iterable[str]) -> Table:
    if key not in machine.values:
        raise wrong(machine.where, f"has no {key!r}", f"give a table with {', '.join(keys)}")
    return Table(f"{machine.where}.{key}", machine.values[key], keys)
