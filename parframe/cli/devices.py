"""`parframe devices`: known devices, and one device with its machines."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import hardware_option


@answers("devices")
@click.argument("name", required=False)
@hardware_option
def command(name: str | None, hardware: tuple[Path, ...]) -> Answer:
    """List the known devices, or show one device with its machines.

    NAME is a device or a machine, such as H100.
    """
    from parframe import hooks
    from parframe.price.serving.hardware_lookup import load_catalog
    from parframe.report.devices import catalog_facts, device_facts, draw_device, draw_devices

    catalog = load_catalog(name or "", hardware)
    for warning in catalog.warnings:
        click.echo(f"warning: {warning}", err=True)
    machines = tuple(catalog.machines.values())
    if name is not None:
        device = catalog.device(name)
        if any(machine.device == device for machine in machines):
            device = catalog.machine(name).device
        facts = device_facts(device, machines)
        return Answer(facts, partial(draw_device, facts))
    devices = catalog.devices.values()
    facts = catalog_facts(devices, machines, hooks.claimed_hardware(), catalog.warnings)
    return Answer(facts, partial(draw_devices, facts["devices"]))
