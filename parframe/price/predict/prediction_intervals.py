"""How far off an engine's figures may be: what its rows tell, and more with what they do not."""

from __future__ import annotations

import math

from parframe.price.cost.estimate import Estimate, joined
from parframe.price.predict.metrics import Kind
from parframe.price.serving.engines import Engine
from parframe.price.serving.steady_state import Deployment
from parframe.price.work.work import Experts

UNKNOWN = 0.4
"""The spread of an engine's figures where none is fitted."""

UNMEASURED = {
    "pipelines": 0.2,
    "experts": 0.15,
    "such figures": 0.15,
}
"""The further spread of what no row of an engine tells: how its pipeline stages overlap, how its
kernels of experts compare, or any figure of a kind. Nothing is fitted here: these are judged."""


def judged(
    kind: Kind, estimate: Estimate, deployment: Deployment, model: str, device: str
) -> Estimate:
    """Return an estimate with the spread that figures of its engine have, and why that is so.

    Parameters
    ----------
    kind
        What it is of.
    estimate
        With the doubt of kernels and exchanges alone.
    deployment
        Whose it is.
    model
        The usual name of the model.
    device
        The key of the GPU.
    """
    own = deployment.engine
    spread = math.hypot(beyond(estimate.log_std, own), spread_of(kind, deployment, model, device))
    why = joined(_unseen(kind, deployment, model, device), estimate.notes)
    return Estimate(estimate.value, spread, why)


def beyond(doubt: float, own: Engine) -> float:
    """Return what kernels and exchanges leave open beyond what an engine's own rows had."""
    return math.sqrt(max(doubt**2 - own.doubt**2, 0.0))


def spread_of(kind: Kind, deployment: Deployment, model: str, device: str) -> float:
    """Return the spread of the engine's own figures: wider with what it was not fitted to."""
    own = deployment.engine
    spread = own.spread.get(kind, max(own.spread.values(), default=UNKNOWN))
    if model not in own.models:
        spread = math.hypot(spread, own.other_model)
    if device not in own.devices:
        spread = math.hypot(spread, own.other_device)
    return math.hypot(spread, *(UNMEASURED[name] for name in _unmeasured(kind, deployment)))


def _unmeasured(kind: Kind, deployment: Deployment) -> list[str]:
    """What is asked that no row of the engine tells."""
    own, work = deployment.engine, deployment.work
    kernels = (kernel for stage in work.stages for kernel in stage.kernels)
    lacking = {
        "pipelines": len(work.stages) > 1 and "overlap" not in own.fitted,
        "experts": "experts" not in own.fitted
        and any(isinstance(kernel, Experts) for kernel in kernels),
        "such figures": bool(own.spread) and kind not in own.spread,
    }
    return [name for name, lacks in lacking.items() if lacks]


def _unseen(kind: Kind, deployment: Deployment, model: str, device: str) -> tuple[str, ...]:
    own = deployment.engine
    new = [
        f"no rows of {own.name} {where} {name}"
        for where, name, seen_before in (("with", model, own.models), ("on", device, own.devices))
        if own.known and name not in seen_before
    ]
    return (*new, *(f"no rows of {own.name} tell of {n}" for n in _unmeasured(kind, deployment)))
