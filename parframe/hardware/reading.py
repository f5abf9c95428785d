"""A file of hardware as devices and machines, refused where it says something illegal."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError, did_you_mean
from parframe.hardware.device import DTYPES, Device
from parframe.hardware.machine import Link, Machine, Shape

MAX_BYTES = 1 << 20
"""A longer file is not read."""

_TABLES = ("device", "machine", "cluster")
_DEVICE = (
    "name", "maker", "architecture", "part", "forms", "dense_tflops", "memory_gib",
    "usable_share", "bandwidth_gb_s", "power_w", "sources", "notes",
)  # fmt: skip
_MACHINE = ("name", "device", "gpus", "link", "pcie", "network", "notes")
_SHAPES: tuple[Shape, ...] = ("switch", "mesh", "pairs")
_GIGA, _TERA = 1e9, 1e12


class Table:
    """A table of a file, whose values are read with checks that name the key."""

    def __init__(self, where: str, values: object, keys: Iterable[str]) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise wrong(where, "is not a table", "write it as [table] with keys")
        self.values: Mapping[str, Any] = values
        keys = tuple(keys)
        for key in values:
            if key not in keys:
                what = f"has no key {key!r}{did_you_mean(key, keys)}"
                raise wrong(where, what, f"give {', '.join(keys)}")

    def text(self, key: str, default: str | None = None) -> str:
        """A text, not empty."""
        return str(self._value(key, default, lambda v: isinstance(v, str) and bool(v), "a text"))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or none."""
        ok = lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v)  # noqa: E731
        return tuple(self._value(key, [], ok, "a list of texts"))

    def number(
        self, key: str, default: float | None = None, least: float = 0.0, most: float = 1e9
    ) -> float:
        """A number above ``least`` and up to ``most``."""
        ok = lambda v: _number(v) and least < v <= most  # noqa: E731
        return float(self._value(key, default, ok, f"a number above {least:g}, at most {most:g}"))

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        ok = lambda v: _number(v) and isinstance(v, int) and 1 <= v <= 1 << 20  # noqa: E731
        return int(self._value(key, default, ok, "a whole number from 1"))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._value(key, default, lambda v: isinstance(v, bool), "true or false"))

    def notes(self) -> dict[str, str]:
        """Texts by key."""
        ok = lambda v: (  # noqa: E731
            isinstance(v, Mapping) and all(isinstance(t, str) for t in v.values())
        )
        return dict(self._value("notes", {}, ok, "texts by the key they are about"))

    def _value(self, key: str, default: Any, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise wrong(self.where, f"has no {key!r}", f"give {expected}")
        if not ok(value):
            shown = repr(value)
            raise wrong(f"{self.where}.{key}", f"is {shown[:60]}", f"give {expected}")
        return value


def parse(text: str, name: str) -> dict[str, dict[str, Any]]:
    """Read the text of a file of hardware, without its meaning.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if it is not TOML, or has other tables than device, machine, cluster.
    """
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise wrong(name, f"is not TOML ({fault})", "mend it there") from fault
    for key, table in found.items():
        if key not in _TABLES:
            what = f"has no table {key!r}{did_you_mean(key, _TABLES)}"
            raise wrong(name, what, f"give {', '.join(_TABLES)}")
        if not isinstance(table, dict):
            raise wrong(f"{name}: {key}", "is not a table", f"write it as [{key}.NAME] with keys")
    return found


def read_text(path: Path) -> str:
    """The text of a file of hardware."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise wrong(str(path), f"has more than {MAX_BYTES >> 20} MiB", "give a shorter file")
        return path.read_text(encoding="utf-8")
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
        power=table.number("power_w", most=1e5),
        sources=table.texts("sources"),
        notes=table.notes(),
    )


def machine_of(key: str, values: object, devices: Mapping[str, Device], name: str) -> Machine:
    """Make a machine of its table; ``devices`` are those that it may name."""
    table = Table(f"{name}: machine.{key}", values, _MACHINE)
    device = table.text("device")
    if device not in devices:
        what = f"is {device!r}, which is no device's key{did_you_mean(device, devices)}"
        raise wrong(f"{table.where}.device", what, "give a key that `parframe devices` lists")
    per_node = table.count("gpus")
    return Machine(
        key=key,
        name=table.text("name", key),
        device=devices[device],
        per_node=per_node,
        link=_direct(table) if "link" in table.values else None,
        pcie=_pcie(table, per_node),
        network=_network(table),
        notes=table.notes(),
    )


def wrong(where: str, what: str, mend: str) -> ParframeError:
    """What is told of a file that cannot be used."""
    return ParframeError("hardware", where, what, mend)


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


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
