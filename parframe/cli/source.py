"""Where a command's model comes from, and the weights that go with it."""

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
        The path or the demo model.
    positions, dtype
        As for `parframe.load`.

    Raises
    ------
    ParframeError
        If it cannot be loaded, or a spec is given that names none.
    """
    if isinstance(source, Path) and source.suffix == ".toml":
        source = model_of(Spec.read(source))
    if isinstance(source, DemoModel):
        return parframe.load(dict(source.config), positions=positions, dtype=dtype)
    return parframe.load(source, positions=positions, dtype=dtype)


def model_of(spec: Spec) -> Path | DemoModel:
    """The model that a spec names.

    Raises
    ------
    ParframeError
        Of kind ``spec``, if it names none.
    """
    if spec.model is None:
        raise ParframeError(
            "spec",
            spec.origin.where("model"),
            "no model is given",
            "add model = ... to the spec, or give --model on the command line",
        )
    return spec.model


def described(source: Path | DemoModel) -> str:
    """A model's origin, for its reader."""
    if isinstance(source, DemoModel):
        return "demo model, made on the spot from its configuration, with random weights"
    return shown(source)


def weights_of(source: Path | DemoModel) -> Path | None:
    """The folder that holds a model's weights; None if it has none."""
    if isinstance(source, Path) and source.is_dir() and any(source.glob("*.safetensors")):
        return source
    return None


def shown(path: Path) -> str:
    """A path for its reader: from the working folder, if it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def weights_text(weights: Path | None, seed: int) -> str:
    """Which weights are used, in words."""
    return f"random, seed {seed}" if weights is None else f"of {shown(weights)}"


def refuse_too_large(graph: OperatorGraph) -> None:
    """Refuse to execute a model that this machine's memory cannot hold twice in float64.

    Raises
    ------
    ParframeError
        Of kind ``run``, with the two ways out.
    """
    elements = sum(int(p.elements) for p in graph.parameters.values() if p.kind == "parameter")
    needed, has = 2 * elements * _FLOAT64, _memory()
    if needed > has:
        raise ParframeError(
            "run",
            "proof by execution",
            f"the model would need {amount(needed)} of memory in float64, this machine has "
            f"{amount(has)}",
            "give --no-execute (in a spec: [verify] execute = false) to plan and check only, or "
            "shrink the model's configuration",
        )


def _memory() -> int:
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(has, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return has
