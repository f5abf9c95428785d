"""Plan and weights of a command that runs a model."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

import parframe
from parframe.cli.source import load_model, model_of, weights_of
from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.spec import Spec

RANDOM = "random"
"""Value of ``--weights`` for random weights."""


def load_or_make_plan(model: Path, parallel: str | None, dtype: str | None = None) -> Plan:
    """Load a plan, or partition a model.

    Raises
    ------
    ParframeError
        Of kind ``usage``, for a plan with a composite.
    """
    if model.name == "plan.json" or (model / "plan.json").is_file():
        if parallel is not None:
            raise ParframeError(
                "usage",
                _option("--parallel"),
                f"{model} is already a plan",
                "give the model instead",
            )
        return parframe.load_plan(model)
    if model.suffix == ".toml":
        spec = Spec.read(model)
        spec = attrs.evolve(spec, parallel=parallel) if parallel is not None else spec
        return parframe.partition(load_model(model_of(spec), None, dtype), spec)
    return parframe.partition(load_model(model, None, dtype), parallel or "TP1")


def find_weights_folder(
    plan: Plan, model: Path, weights: str | None, pickled: bool = False
) -> Path | None:
    """Find the weights folder, by default that of the model; None for random weights.

    Raises
    ------
    ParframeError
        If the folder is missing.
    """
    if weights == RANDOM:
        return None
    if weights is not None:
        if not Path(weights).is_dir():
            raise ParframeError(
                "weights", weights, "is not a folder", "use a folder with .safetensors, or random"
            )
        return Path(weights)
    folder = weights_of(model) or weights_of(Path(plan.graph.source or "no model"))
    if folder is None and pickled and model.is_dir():
        return model
    if folder is None:
        raise ParframeError(
            "usage",
            _option("--weights"),
            f"{plan.graph.source or 'the model'} has no .safetensors",
            "give --weights PATH, or --weights random to try the plan",
        )
    return folder


def find_model_folders(plan: Plan, model: Path, weights: Path | None) -> tuple[Path, ...]:
    """Find the folders that may have the model's tokenizer, the most likely first."""
    folders = [weights] if weights is not None else []
    folders += [model if model.is_dir() else model.parent, Path(plan.graph.source or "no model")]
    return tuple(folder for folder in folders if folder.is_dir())


def _option(name: str) -> str:
    """Return an option with the command that runs."""
    context = click.get_current_context(silent=True)
    return f"parframe {context.info_name} {name}" if context is not None else name
