"""`parframe devices`: the hardware that is known, and one device with the machines it comes in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from parframe.cli.answer import Answer, answers


@answers("devices")
@click.argument("name", required=False)
@click.option(
    "--hardware",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file of TOML with devices and machines of your own; may be repeated.",
)
def command(name: str | None, hardware: tuple[Path, ...]) -> Answer:
    """List the hardware that is known, or show one GPU with its machines."""
    from parframe import hooks
    from parframe.price.serving.hardware_lookup import known
    from parframe.report.devices import device_facts, draw_device, draw_devices

    found = known(name or "", hardware)
    for doubt in found.warnings:
        click.echo(f"warning: {doubt}", err=True)
    machines = tuple(found.machines.values())
    if name is not None:
        device = found.device(name)
        if any(machine.device == device for machine in machines):
            device = found.machine(name).device
        facts = device_facts(device, machines)
        return Answer(facts, partial(draw_device, facts))
    every = [device_facts(device, machines) for device in found.devices.values()]
    listed = {"devices": every, "claimed": hooks.claimed_hardware(), "doubts": list(found.warnings)}
    return Answer(listed, partial(draw_devices, every))
