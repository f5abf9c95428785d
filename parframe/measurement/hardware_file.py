"""Text of a hardware file, with the keys that `parframe.hardware.hardware_files` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from parframe.hardware import Device, Machine

_DIGITS = 4
"""Significant digits of numbers."""


def format_hardware_file(machines: Iterable[Machine], comment: Iterable[str] = ()) -> str:
    """Return the text of a hardware file that describes machines, with a comment at its top."""
    lines = [f"# {line}".rstrip() for line in comment]
    for machine in machines:
        for device in (machine.device, machine.alone):
            lines += _format_device(device) if device is not None else ()
        lines += _format_machine(machine)
    return "\n".join(lines) + "\n"


def _format_device(device: Device) -> Iterator[str]:
    yield from ("", f"[device.{device.key}]")
    yield from _format_pairs(
        {
            "name": device.name,
            "maker": device.maker or "unknown",
            "architecture": device.architecture,
            "part": device.part,
            "dense_tflops": {dtype: rate / 1e12 for dtype, rate in device.rates.items()},
            "memory_gib": device.memory / 2**30,
            "usable_share": device.usable_share,
            "bandwidth_gb_s": device.bandwidth / 1e9,
            "sources": list(device.sources),
        }
    )
    for operator, dtypes in device.measured.items():
        for dtype, speeds in dtypes.items():
            yield f"[device.{device.key}.measured.{operator}.{dtype}]"
            giga = [speed / 1e9 for speed in speeds.speeds]
            values = {"sizes": list(speeds.sizes), "giga_per_s": giga, **_log_std(speeds)}
            yield from _format_pairs(values)


def _format_machine(machine: Machine) -> Iterator[str]:
    yield from ("", f"[machine.{machine.key}]")
    pcie = {"kind": machine.pcie.kind, "gb_s": machine.pcie.bandwidth / 1e9, "peer": False}
    facts = {"name": machine.name, "device": machine.device.key, "gpus": machine.per_node}
    facts |= {"alone": machine.alone.key} if machine.alone is not None else {}
    facts |= {"divided": machine.divided} if machine.divided is not None else {}
    yield from _format_pairs({**facts, "pcie": pcie})
    for name, constants in machine.engines.items():
        yield f"[machine.{machine.key}.engine.{json.dumps(name)}]"
        yield from _format_pairs(constants)
    for collective in machine.collectives:
        yield f"[[machine.{machine.key}.collective]]"
        values = {
            "kind": collective.kind,
            "ranks": collective.ranks,
            "bytes": list(collective.sizes),
            "us": [seconds * 1e6 for seconds in collective.seconds],
        }
        yield from _format_pairs(values | _log_std(collective))


def _log_std(measured: Any) -> dict[str, float]:
    """Return the standard deviation of the logarithm of times as a pair, if there is one."""
    return {"log_std": measured.log_std} if measured.log_std > 0 else {}


def _format_pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{key} = {_format_value(value)}"


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_format_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format_value, value)) + "]"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and value < 1e15 else f"{value:.{_DIGITS}g}"
    return json.dumps(value) if isinstance(value, str) else str(value)
