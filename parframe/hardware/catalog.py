"""Catalog of devices and machines: those that ship, and those of files and plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from parframe.hardware.checked_table import CheckedTable, hardware_error
from parframe.hardware.cluster import Cluster
from parframe.hardware.device import Device
from parframe.hardware.hardware_files import parse, read_device, read_machine, read_text
from parframe.hardware.machine import Machine
from parframe.hardware.name_lookup import find_device, find_machine
from parframe.hardware.sparsity_warnings import sparsity_warnings

_SHIPPED = ("nvidia.toml", "amd.toml", "others.toml", "machines.toml")
_COUNTED = re.compile(r"\s*(?P<count>\d{1,9})\s*[x*]\s*(?P<name>\S.*?)\s*", re.IGNORECASE)


@attrs.frozen
class Catalog:
    """Devices and machines by key."""

    devices: Mapping[str, Device]  # the usual form of a chip before its other forms
    machines: Mapping[str, Machine]  # the usual one of a device first
    warnings: tuple[str, ...] = ()  # about figures of files that were added
    clusters: Mapping[str, Cluster] = attrs.field(factory=dict)  # by the name of the file

    def device(self, name: str) -> Device:
        """Return the device of a name, in any usual spelling."""
        return find_device(name, tuple(self.devices.values()))

    def machine(self, name: str) -> Machine:
        """Return the machine of a name, or the usual machine of a device's name."""
        return find_machine(name, tuple(self.machines.values()))

    def cluster(self, text: str) -> Cluster:
        """Return the cluster of a text such as `64xH100`.

        Raises
        ------
        ParframeError
            Of kind `hardware`, if the text has no number or names unknown hardware.
        """
        found = _COUNTED.fullmatch(text[:200])
        if found is None:
            hint = "write it as 64xH100, or give a file that has [cluster]"
            raise hardware_error(repr(text[:60]), "is not a number of devices", hint)
        return self._make_cluster(self.machine(found["name"]), int(found["count"]))

    def _make_cluster(self, machine: Machine, count: int) -> Cluster:
        """Return ``count`` devices of a machine, as measured for this number if it is divided."""
        if machine.divided is None:
            return Cluster(machine, count)
        others = (m for m in self.machines.values() if m.name == machine.name)
        known = {other.divided: other for other in others}
        if count not in known:
            what = f"was measured with {', '.join(map(str, known))} ranks only"
            hint = f"run parframe measure --ranks {count}"
            raise hardware_error(f"{count}x{machine.name}", what, hint)
        return Cluster(known[count], count)

    def with_text(self, text: str, name: str) -> Catalog:
        """Return this catalog with the entries of a TOML text, which replace those of equal keys.

        Errors call the text by `name`.
        """
        tables = parse(text, name)
        new_devices = {
            key: read_device(key, v, name) for key, v in tables.get("device", {}).items()
        }
        devices = {**new_devices, **{k: d for k, d in self.devices.items() if k not in new_devices}}
        new_machines = {
            key: read_machine(key, v, devices, name) for key, v in tables.get("machine", {}).items()
        }
        machines = {
            key: attrs.evolve(
                machine,
                device=devices[machine.device.key],
                alone=machine.alone and devices[machine.alone.key],
            )
            for key, machine in self.machines.items()
            if key not in new_machines
        }
        warnings = [
            warning
            for device in new_devices.values()
            for warning in sparsity_warnings(device, self.devices.values())
        ]
        extended = Catalog(
            devices, {**new_machines, **machines}, (*self.warnings, *warnings), self.clusters
        )
        if "cluster" not in tables:
            return extended
        cluster = extended._read_cluster(tables["cluster"], name)
        return attrs.evolve(extended, clusters={**self.clusters, name: cluster})

    def _read_cluster(self, values: Mapping[str, Any], name: str) -> Cluster:
        """Read the table `cluster` of a file."""
        table = CheckedTable(f"{name}: cluster", values, ("machine", "devices"))
        return self._make_cluster(self.machine(table.text("machine")), table.count("devices"))


@cache
def shipped() -> Catalog:
    """Return the catalog that ships with parframe."""
    data = files("parframe.hardware") / "data"
    parts = [(name, (data / name).read_text(encoding="utf-8")) for name in _SHIPPED]
    devices = {
        key: read_device(key, values, name)
        for name, text in parts
        for key, values in parse(text, name).get("device", {}).items()
    }
    machines = {
        key: read_machine(key, values, devices, name)
        for name, text in parts
        for key, values in parse(text, name).get("machine", {}).items()
    }
    return Catalog(devices, machines)


def catalog(sources: Iterable[Path | str] = ()) -> Catalog:
    """Return the shipped catalog with the entries of files (paths) or TOML texts, later ones first.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if a file cannot be read or has an illegal value.
    """
    found = shipped()
    for source in sources:
        path = isinstance(source, Path)
        text = read_text(Path(source)) if path else str(source)
        found = found.with_text(text, str(source) if path else "hardware")
    return found


def cluster(text: str, sources: Iterable[Path | str] = ()) -> Cluster:
    """Return the cluster of a text such as `64xH100`, or of a `.toml` file that has [cluster].

    Further hardware comes from `sources`: paths of files, or TOML texts.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if the text names unknown hardware, or the file has no cluster.

    Examples
    --------
    >>> eight_nodes = cluster("64xH100")
    >>> eight_nodes.machine.name, eight_nodes.nodes
    ('HGX H100', 8)
    """
    if not text.strip().casefold().endswith(".toml"):
        return catalog(sources).cluster(text)
    path = Path(text.strip())
    found = catalog((*sources, path)).clusters.get(str(path))
    if found is None:
        raise hardware_error(
            str(path), "has no [cluster]", "add [cluster] with machine and devices"
        )
    return found
