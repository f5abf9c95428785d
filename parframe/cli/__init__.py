"""Command line: `parframe COMMAND`."""

from __future__ import annotations

import os
import sys

from parframe.cli.failures import run
from parframe.cli.group import Group

COMMANDS = {
    "apply": "Partition the model of a spec; check, verify and write the plan.",
    "load": "Load a model as an operator graph and write it as JSON.",
    "dims": "List the named dimensions of a model.",
    "check": "Check a plan without running it.",
    "verify": "Execute all devices of a plan in this process and compare with the model.",
    "generate": "Complete prompts with a model on many devices.",
    "bench": "Measure the generation speed of a model on many devices.",
    "measure": "Measure this machine, and write a hardware file for estimates and choices.",
    "shard": "Write the weights of each rank to a file of its own.",
    "show": "Show the mesh, the stages or the operators of a plan.",
    "choose": "Rank every composite of a model for a number of devices.",
    "estimate": "Estimate the memory, TTFT, TPOT and throughput of a spec.",
    "devices": "List the known devices, or show one device with its machines.",
    "predict": "Predict the metric of each row of a table, with an 80 % interval.",
    "fit": "Show the minimum number of GPUs that a model fits on.",
    "coverage": "Survey the causal language models that load and are verified.",
    "plugins": "List the installed plugins without importing them.",
}
"""Commands with the first line of their help; each is a module of this package."""

group = Group(
    "parframe",
    COMMANDS,
    help="Partition any PyTorch model for inference: name its dimensions, then place the names "
    "on the devices.",
    epilog="Every command takes --help. Start with: parframe apply specs/quickstart.toml",
)


def main() -> None:
    """Run the command line and exit."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a configuration alone is needed
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(run(group, sys.argv[1:]))
