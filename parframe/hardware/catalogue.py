"""The devices and machines that are known: those that ship, and those of files and plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.hardware.checked_table import Table, wrong
from parframe.hardware.cluster import Cluster
from parframe.hardware.device import Device
from parframe.hardware.hardware_files import device_of, machine_of, parse, read_text
from parframe.hardware.machine import Machine
from parframe.hardware.name_lookup import find_device, find_machine
from parframe.hardware.sparsity_warnings import doubts

_SHIPPED = ("nvidia.toml", "amd.toml", "others.toml", "machines.toml")
_COUNTED = re.compile(r"\s*(?P<count>\d{1,9})\s*[x*]\s*(?P<name>\S.*?)\s*", re.IGNORECASE)


@attrs.frozen
class Catalogue:
    """Devices and machines by key.

    Parameters
    ----------
    devices
        Every device, the usual one of a chip before its other forms.
    machines
        Every machine, the usual one of a device first.
    doubts
        What looks wrong in files that were added, and is not refused.
    clusters
        Clusters that files describe, by the name of the file.
    """

    devices: Mapping[str, Device]
    machines: Mapping[str, Machine]
    doubts: tuple[str, ...] = ()
    clusters: Mapping[str, Cluster] = attrs.field(factory=dict)

    def device(self, name: str) -> Device:
        """Find a device by a name in any usual spelling."""
        return find_device(name, tuple(self.devices.values()))

    def machine(self, name: str) -> Machine:
        """Find a machine, or the usual machine of a device, by a name in any usual spelling."""
        return find_machine(name, tuple(self.machines.values()))

    def cluster(self, text: str) -> Cluster:
        """Read a number of devices such as `64xH100`.

        Raises
        ------
        ParframeError
            Of kind `hardware`, if it says no number, or nothing that is known.
        """
        found = _COUNTED.fullmatch(text[:200])
        if found is None:
            raise ParframeError(
                "hardware",
                repr(text[:60]),
                "is not a number of devices",
                "write it as 64xH100, or give a file that has [cluster]",
            )
        return self._of(self.machine(found["name"]), int(found["count"]))

    def _of(self, machine: Machine, count: int) -> Cluster:
        """So many devices of a machine, divided into so many where that makes a difference."""
        if machine.divided is None:
            return Cluster(machine, count)
        others = (m for m in self.machines.values() if m.name == machine.name)
        known = {other.divided: other for other in others}
        if count not in known:
            told = ", ".join(str(divided) for divided in known)
            raise ParframeError(
                "hardware",
                f"{count}x{machine.name}",
                f"it was measured when divided into {told}",
                f"measure it: parframe measure --ranks {count}",
            )
        return Cluster(known[count], count)

    def with_text(self, text: str, name: str) -> Catalogue:
        """Add what a file of TOML says; what it has of the same key takes the older one's place.

        Parameters
        ----------
        text
            The text of the file.
        name
            What it is called in errors.
        """
        tables = parse(text, name)
        own = {key: device_of(key, v, name) for key, v in tables.get("device", {}).items()}
        devices = {**own, **{k: d for k, d in self.devices.items() if k not in own}}
        mine = {
            key: machine_of(key, v, devices, name) for key, v in tables.get("machine", {}).items()
        }
        kept = {
            key: attrs.evolve(
                machine,
                device=devices[machine.device.key],
                alone=machine.alone and devices[machine.alone.key],
            )
            for key, machine in self.machines.items()
            if key not in mine
        }
        told = [t for d in own.values() for t in doubts(d, self.devices.values())]
        found = Catalogue(devices, {**mine, **kept}, (*self.doubts, *told), self.clusters)
        if "cluster" not in tables:
            return found
        cluster = found._cluster(tables["cluster"], name)
        return attrs.evolve(found, clusters={**self.clusters, name: cluster})

    def _cluster(self, values: Mapping[str, Any], name: str) -> Cluster:
        """Read the table `cluster` of a file."""
        table = Table(f"{name}: cluster", values, ("machine", "devices"))
        return self._of(self.machine(table.text("machine")), table.count("devices"))


@cache
def shipped() -> Catalogue:
    """The catalogue that parframe ships."""
    data = files("parframe.hardware") / "data"
    found = Catalogue({}, {})
    parts = [(name, (data / name).read_text(encoding="utf-8")) for name in _SHIPPED]
    devices = {
        key: device_of(key, values, name)
        for name, text in parts
        for key, values in parse(text, name).get("device", {}).items()
    }
    machines = {
        key: machine_of(key, values, devices, name)
        for name, text in parts
        for key, values in parse(text, name).get("machine", {}).items()
    }
    return attrs.evolve(found, devices=devices, machines=machines)


def catalogue(sources: Iterable[Path | str] = ()) -> Catalogue:
    """Give what ships with what files say.

    Parameters
    ----------
    sources
        Paths of files, or texts of TOML, each added to those before it.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if a file cannot be read or says something illegal.
    """
    found = shipped()
    for source in sources:
        path = isinstance(source, Path)
        text = read_text(Path(source)) if path else str(source)
        found = found.with_text(text, str(source) if path else "hardware")
    return found


def cluster(text: str, sources: Iterable[Path | str] = ()) -> Cluster:
    """Read a cluster: `64xH100`, or the path of a file that has [cluster].

    Parameters
    ----------
    text
        How many of what, or a path that ends in ``.toml``.
    sources
        Further files or texts of hardware.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if it names nothing that is known, or a file says no cluster.

    Examples
    --------
    >>> boxes = cluster("64xH100")
    >>> boxes.machine.name, boxes.nodes
    ('HGX H100', 8)
    """
    if not text.strip().casefold().endswith(".toml"):
        return catalogue(sources).cluster(text)
    path = Path(text.strip())
    found = catalogue((*sources, path)).clusters.get(str(path))
    if found is None:
        raise wrong(str(path), "has no [cluster]", "give it a machine and a number of devices")
    return found
