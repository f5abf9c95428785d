"""Model of a command, and its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import parframe
from parframe.errors import ParframeError
from parframe.report.formatting import amount
from parframe.spec import DemoModel, Spec

if TYPE_CHECKING:
    from parframe.graph import OperatorGraph

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_FLOAT64 = 8


def load_model(
    source: Path | DemoModel, positions: bool | None = False, dtype: str | None = None
) -> OperatorGraph:
    """Load a model from a path, or from the configuration of a demo model.

    Parameters
    ----------
    source
        Path or demo model.
    positions, dtype
        As for `parframe.load`.

    Raises
    ------
    ParframeError
        If it cannot be loaded, or if a spec names no model.
    """
    if isinstance(source, Path) and source.suffix == ".toml":
        source = model_of(Spec.read(source))
    if isinstance(source, DemoModel):
        return parframe.load(dict(source.config), positions=positions, dtype=dtype)
    return parframe.load(source, positions=positions, dtype=dtype)


def model_of(spec: Spec) -> Path | DemoModel:
    """Return the model that a spec names.

    Raises
    ------
    ParframeError
        Of kind ``spec``, if it names none.
    """
    if spec.model is None:
        raise ParframeError(
            "spec",
            spec.origin.where("model"),
            "the spec names no model",
            "add model = ... to the spec, or use --model",
        )
    return spec.model


def described(source: Path | DemoModel) -> str:
    """Return a description of a model's source."""
    if isinstance(source, DemoModel):
        return "demo model, built from its configuration with random weights"
    return shown(source)


def weights_of(source: Path | DemoModel) -> Path | None:
    """Return the folder with a model's weights; None if it has none."""
    if isinstance(source, Path) and source.is_dir() and any(source.glob("*.safetensors")):
        return source
    return None


def shown(path: Path) -> str:
    """Return a path as text, relative to the working folder if it is below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def weights_text(weights: Path | None, seed: int) -> str:
    """Return a description of the weights."""
    return f"random, seed {seed}" if weights is None else f"of {shown(weights)}"


def refuse_too_large(graph: OperatorGraph) -> None:
    """Refuse to execute a model that this machine's memory cannot hold twice in float64.

    Raises
    ------
    ParframeError
        Of kind ``run``, with two hints.
    """
    elements = sum(int(p.elements) for p in graph.parameters.values() if p.kind == "parameter")
    needed, has = 2 * elements * _FLOAT64, _memory()
    if needed > has:
        raise ParframeError(
            "run",
            "verification by execution",
            f"the model needs {amount(needed)} in float64, this machine has {amount(has)}",
            "use --no-execute (in a spec: [verify] execute = false) to plan and check only, or "
            "shrink the model's configuration",
        )


def _memory() -> int:
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(has, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no control group, or no limit
        return has
